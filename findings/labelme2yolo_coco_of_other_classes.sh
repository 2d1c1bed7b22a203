#!/usr/bin/env bash
# labelme2yolo 0.4.0: its second command, `labelme2coco`, gives each object the name of another class. It numbers
# categories from 1, as COCO does, and refers to them from 0. With the classes ant, bee, cat, in this order, each bee is
# an ant, each cat a bee, and ants have the number 0, which no category has: readers leave them out or fail. Without a
# list of labels the order is another in each run, so that the same cats are bees today and eels tomorrow; with a list
# on the command line it is the class before. With `--deterministic_labels`, which is to fix the order, and no list, the
# file has all images, no categories and no annotations. Masks and boxes are right, and the log says "completed
# successfully". `labelme2yolo` of the same package gives the right classes. Predictions that are right have an AP of 0
# on the file, and a network that learns from it learns each class under the name of another.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check labelme2yolo==0.4.0 pycocotools==2.0.11 \
    numpy==2.2.6 pillow==12.0.0
cd "$folder"
cat > evaluate.py <<'PYTHON'
import contextlib
import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIDE, IMAGES = 100, 10
CLASSES = ['ant', 'bee', 'cat', 'dog', 'eel', 'fox']
LISTED = ','.join(CLASSES)


def height(kind):
    """Objects of a class have a height of their own, by which they are known again."""
    return 10 + 5 * CLASSES.index(kind)


def corners(kind):
    left = 5 + 15 * CLASSES.index(kind)
    return [[left, 5], [left + 10, 5], [left + 10, 5 + height(kind)], [left, 5 + height(kind)]]


Path('labels').mkdir()
for number in range(IMAGES):
    Image.new('RGB', (SIDE, SIDE)).save(f'labels/{number}.png')
    shapes = [
        dict(label=kind, points=corners(kind), shape_type='polygon', group_id=None, flags={}) for kind in CLASSES]
    Path(f'labels/{number}.json').write_text(json.dumps(dict(
        version='5.5.0', flags={}, shapes=shapes, imagePath=f'{number}.png', imageData=None, imageHeight=SIDE,
        imageWidth=SIDE)))


def run(command, name, *options):
    command = [str(Path(sys.executable).parent / command), '--json_dir', 'labels', '--output_dir', name, *options]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not any(word in result.stdout + result.stderr for word in ('WARN', 'ERROR')), result


def convert(name, *options):
    """The file of the training images, the classes in its order, and each object's class beside that in the file."""
    run('labelme2coco', name, *options)
    files = [f'{name}/annotations/instances_{part}.json' for part in ('train', 'val')]
    contents = [json.loads(Path(file).read_text()) for file in files]
    names = {category['id']: category['name'] for category in contents[0]['categories']}
    kinds = {height(kind): kind for kind in CLASSES}
    named = Counter(
        (kinds[round(one['bbox'][3])], names.get(one['category_id']))
        for content in contents for one in content['annotations'])
    order = [names[number] for number in sorted(names)]
    assert sum(len(content['images']) for content in contents) == IMAGES
    print(f'{name}: {sum(named.values())} objects, categories {order}')
    pairs = sorted(named, key=lambda pair: pair[0])
    print('   ', ', '.join(f'{kind} is {name or "of no category"}' for kind, name in pairs) or 'no objects')
    return files[0], order, named


def average_precision(file):
    """Of predictions that are right: all objects, with their classes' numbers in the file."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(file)
        number = {category['name']: category['id'] for category in truth.dataset['categories']}
        found = [
            dict(image_id=image, category_id=number[kind], score=0.9, bbox=[corners(kind)[0][0], 5, 10, height(kind)],
                 segmentation=[[value for point in corners(kind) for value in point]])
            for image in truth.getImgIds() for kind in CLASSES]
        evaluation = COCOeval(truth, truth.loadRes(found), 'segm')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(float(evaluation.stats[0]), 3)


wrong = 0
for name, options in dict(first=[], second=[], listed=[LISTED]).items():
    file, order, named = convert(name, *options)
    before = {kind: order[order.index(kind) - 1] if order.index(kind) else None for kind in CLASSES}
    wrong += sorted(order) == CLASSES and set(named) == set(before.items())
    print('    AP of predictions that are right:', ap := average_precision(file))
    wrong += ap == 0
_, order, named = convert('deterministic', '--deterministic_labels')
wrong += not order and not named

run('labelme2yolo', 'yolo', '--output_format', 'polygon')
lines = Path('yolo/dataset.yaml').read_text().partition('names:')[2].splitlines()
names = [line.split(': ')[1] for line in lines if line.strip()]
objects = [line.split() for file in Path('yolo/labels').glob('*/*.txt') for line in file.read_text().splitlines()]
right = sum(round(float(left) * SIDE) == corners(names[int(number)])[0][0] for number, left, *_ in objects)
print(f'labelme2yolo: {right} of {len(objects)} objects have their class')
assert right == len(objects) == IMAGES * len(CLASSES)
if wrong != 7:
    sys.exit('changed: objects have their classes, or others')
PYTHON
"$folder/venv/bin/python" evaluate.py
