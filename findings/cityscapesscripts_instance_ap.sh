#!/usr/bin/env bash
# cityscapesScripts 2.3.0 (NumPy 2.2.6): two things about the AP of Cityscapes' instance evaluation, the official one,
# which mmdet and others call. Caravans and trailers, "ignoreInEval" in its table of labels, are not ignored: it looks
# for the ignored classes' numbers, 29 and 30, among pixels whose values are 29001, 30002 and so on. Who predicts a car
# where a caravan stands gets a false positive (AP 0.25 in place of 1 below); on void and on a group of caravans the
# same prediction is free. And the area under the curve is taken by trapezoids up to an artificial point of precision 1
# at recall 0. Where all predictions have one score, as of methods that have none and write 1.0, this is the whole
# curve: of 20 cars below 14 are found, beside 14 false ones, which is a precision of 0.5 and a recall of 0.7. Its AP is
# 0.525. With any scores that do not tell right from wrong it is about 0.37 (mean of 40 random orders). So a method
# without scores, compared with one whose scores are poor, gets 0.15 too much.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cityscapesscripts==2.3.0 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import tempfile
from pathlib import Path

import cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling as evaluation
import numpy as np
from cityscapesscripts.helpers.labels import name2label
from PIL import Image

HEIGHT, WIDTH, SIDE = 200, 400, 20
CAR = name2label['car'].id
PLACES = [(30 * row, 30 * column) for row in range(6) for column in range(12)]


def paint(image, place, value):
    y, x = PLACES[place]
    image[y : y + SIDE, x : x + SIDE] = value
    return image


def ap(objects, predictions):
    """AP of cars; objects are pixel values by place, predictions places with scores."""
    root = Path(tempfile.mkdtemp(dir='.')).resolve()
    image = np.full((HEIGHT, WIDTH), name2label['road'].id, np.uint16)
    for place, value in objects.items():
        paint(image, place, value)
    truth, listed = root / 'aachen_000000_000019_gtFine_instanceIds.png', root / 'aachen_000000_000019_pred.txt'
    Image.fromarray(image).save(truth)
    for place in predictions:
        Image.fromarray(paint(np.zeros((HEIGHT, WIDTH), np.uint8), place, 255)).save(root / f'{place}.png')
    listed.write_text(''.join(f'{place}.png {CAR} {score}\n' for place, score in predictions.items()))
    evaluation.args.quiet, evaluation.args.JSONOutput = True, False
    evaluation.args.predictionPath = str(root)
    evaluation.args.gtInstancesFile = str(root / 'gtInstances.json')
    results = evaluation.evaluateImgLists([str(listed)], [str(truth)], evaluation.args)
    return round(float(results['averages']['classes']['car']['ap']), 3)


seen = []
for name, value in (('void (static)', name2label['static'].id), ('a group of caravans', name2label['caravan'].id),
                    ('a caravan', 1000 * name2label['caravan'].id + 1),
                    ('a trailer', 1000 * name2label['trailer'].id + 2)):
    seen.append(ap({0: 1000 * CAR, 1: value}, {0: 0.8, 1: 0.9}))
    label = name2label['trailer' if 'trailer' in name else 'caravan' if 'caravan' in name else 'static']
    print(f'one car, found, and a car predicted on {name}, ignoreInEval {label.ignoreInEval}: AP', seen[-1])
cars = {place: 1000 * CAR + place for place in range(20)}
predicted = range(6, 34)  # 14 of the 20 cars, and 14 places without one
equal = ap(cars, dict.fromkeys(predicted, 1.0))
rng = np.random.default_rng(0)
by_chance = [ap(cars, dict(zip(predicted, rng.permutation(len(predicted))))) for _ in range(40)]
first = [ap(cars, {place: 1.0 if (place < 20) == right else 0.9 for place in predicted}) for right in (True, False)]
print(f'14 of 20 cars found, 14 false: AP {equal} with score 1.0 for all; with random scores {np.mean(by_chance):.2f},',
      f'from {min(by_chance)} to {max(by_chance)}; right ones first {first[0]}, wrong ones first {first[1]}')
if seen != [1.0, 1.0, 0.25, 0.25] or equal != 0.525 or not np.mean(by_chance) < 0.45:
    sys.exit('changed: caravans are ignored, or equal scores are no advantage')
PYTHON
