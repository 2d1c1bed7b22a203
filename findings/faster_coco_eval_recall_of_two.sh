#!/usr/bin/env bash
# faster-coco-eval 1.8.0: `extended_metrics` (precision and recall at the best F1) counts duplicate detections as true
# positives, and detections in crowds, too. It takes a pair of detection and object that matched at any of the ten IoU
# thresholds, if its IoU is at least 0.5. At a high threshold a loose detection fails and frees its object for a
# duplicate that is tighter: both count, at 0.5, where COCO matches an object once. Recall goes past 1, and the best
# score threshold moves to where duplicates are let through. Below: one object with a loose and a tight mask has a
# recall of 2, one object and three detections in a crowd a recall of 4, each with a precision of 1. In a data set where
# 15 of 20 objects are found, each twice, and ten detections are false, it reports a precision of 0.83 and a recall of
# 1.5; by pycocotools' matches they are 0.94 and 0.75. AP and AR are right. The flags `tp` and `fp` on the annotations,
# by which the package draws errors, are wrong in the same way (`extra_calc=True`).
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check faster-coco-eval==1.8.0 pycocotools==2.0.11
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import copy
import io
import sys

import faster_coco_eval
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
from pycocotools import mask as api

SIDE = 20  # of an object, in pixels
HEIGHT, WIDTH = 5 * 30, 6 * 30


def mask(*cells, rows=SIDE, columns=SIDE):
    """The upper rows and left columns of the objects in cells of the grid, as one run length."""
    image = np.zeros((HEIGHT, WIDTH), np.uint8, order='F')
    for cell in cells:
        y, x = 30 * (cell // 6), 30 * (cell % 6)
        image[y : y + rows, x : x + columns] = 1
    rle = api.encode(image)
    return dict(rle, counts=rle['counts'].decode())


def annotation(number, segmentation, iscrowd=0):
    return dict(id=number, image_id=1, category_id=1, segmentation=segmentation, iscrowd=iscrowd,
                area=int(api.area(segmentation)), bbox=api.toBbox(segmentation).tolist())


def detection(segmentation, score):
    return dict(image_id=1, category_id=1, segmentation=segmentation, score=score)


def evaluate(package, evaluator, objects, detections, **options):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = package.COCO()
        truth.dataset = dict(images=[dict(id=1, file_name='a.png', height=HEIGHT, width=WIDTH)],
                             categories=[dict(id=1, name='cell')], annotations=copy.deepcopy(objects))
        truth.createIndex()
        results = truth.loadRes(copy.deepcopy(detections))
        evaluation = evaluator(truth, results, 'segm', **options)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def best(objects, detections):
    """Precision and recall at the best F1, by the matches of pycocotools at IoU 0.5; and AP at IoU 0.5."""
    evaluation = evaluate(pycocotools.coco, pycocotools.cocoeval.COCOeval, objects, detections)
    image = evaluation.evalImgs[0]  # of all areas, best scores first
    counted = ~image['dtIgnore'][0].astype(bool)
    found = image['dtMatches'][0][counted] > 0
    number = sum(not each['iscrowd'] for each in objects)
    true = np.cumsum(found)
    precision, recall = true / np.arange(1, len(true) + 1), true / number
    place = np.argmax(2 * precision * recall / np.maximum(precision + recall, 1e-9))
    return round(float(precision[place]), 2), round(float(recall[place]), 2), round(float(evaluation.stats[1]), 3)


cases = {
    'one object, a loose and a tight mask': (
        [annotation(1, mask(0))],
        [detection(mask(0, rows=13), 0.9), detection(mask(0, rows=19), 0.8)]),
    'one object, three detections in a crowd': (
        [annotation(1, mask(0)), annotation(2, mask(*range(12, 18)), iscrowd=1)],
        [detection(mask(0), 0.9), *(detection(mask(cell, columns=10), 0.8) for cell in range(12, 15))]),
    '15 of 20 objects found twice, ten false': (
        [annotation(1 + cell, mask(cell)) for cell in range(20)],
        [each for cell in range(15) for each in (
            detection(mask(cell, rows=13), 0.95 - 0.01 * cell), detection(mask(cell, rows=19), 0.745 - 0.01 * cell))]
        + [detection(mask(20 + place), score) for place, score in enumerate(
            (0.905, 0.735, 0.705, 0.675, 0.645, 0.615, 0.3, 0.25, 0.2, 0.15))]),
}
seen = []
for name, (objects, detections) in cases.items():
    evaluation = evaluate(faster_coco_eval, faster_coco_eval.COCOeval_faster, objects, detections, extra_calc=True)
    reported = evaluation.extended_metrics
    flags = sum(bool(each.get('tp')) for each in evaluation.cocoDt.anns.values())
    right = best(objects, detections)
    seen.append((round(reported['precision'], 2), round(reported['recall'], 2), flags, right[:2]))
    print(f'{name}: precision {seen[-1][0]}, recall {seen[-1][1]}; {flags} of {len(detections)} detections have `tp`;',
          f'by pycocotools precision {right[0]}, recall {right[1]}. AP50 {reported["map"]:.3f} and {right[2]}')
if seen != [(1.0, 2.0, 2, (1.0, 1.0)), (1.0, 4.0, 4, (1.0, 1.0)), (0.83, 1.5, 30, (0.94, 0.75))]:
    sys.exit('changed: duplicates and detections in crowds are no longer true positives, or otherwise')
PYTHON
