#!/usr/bin/env bash
# superannotate 4.6.2 (SuperAnnotate's SDK): `import_annotation` with `task='instance_segmentation'` turns files into
# SuperAnnotate's format with other objects than they hold.
# From COCO, an object in two parts becomes two objects. SuperAnnotate binds polygons by `groupId`; the converter sets
# it where an annotation's id occurs more than once in the file, which ids do not. Masks that are run lengths have their
# holes filled: of a ring of 300 pixels a polygon of 400 is left.
# From Pascal VOC parts become objects, too: their group is counted and then dropped. And objects are told apart by the
# grey value of their colour, which is not unique from 17 on: numbers 2 and 17 of an image, 5 and 20, 10 and 25 are one
# object, of the class of one of them. Below, of 20 objects by turns dogs and cats, dog 17 is a cat afterwards and cat
# 20 a dog. Where 2 and 17 lie side by side, they are one polygon, a cat. No message is given.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check superannotate==4.6.2 pycocotools==2.0.11 \
    numpy==2.2.6
cd "$folder"
export TQDM_DISABLE=1 HOME="$folder"
cat > convert.py <<'PYTHON'
import json
import sys
from pathlib import Path

import numpy as np
import superannotate
from PIL import Image
from pycocotools import mask as api

HEIGHT, WIDTH = 64, 256


def convert(name, kind, **options):
    """The polygons of the image in SuperAnnotate's format: class, group, points."""
    superannotate.import_annotation(
        name, f'{name}_converted', dataset_format=kind, project_type='Vector', task='instance_segmentation', **options)
    (file,) = Path(f'{name}_converted').glob('*.json')
    instances = json.loads(file.read_text())['instances']
    return [(one['className'], one.get('groupId', 0), one['points']) for one in instances]


def pixels(points):
    """Of a polygon through the centres of border pixels, as the converter makes them: the pixels that it encloses."""
    left, right, top, bottom = min(points[::2]), max(points[::2]), min(points[1::2]), max(points[1::2])
    assert len(points) == 8, 'a rectangle'
    return (right - left + 1) * (bottom - top + 1)


def voc(name, mask, boxes):
    """Pascal VOC's folders, with its palette."""
    palette = []
    for value in range(256):
        bits = [(value >> place & 1, place % 3, 7 - place // 3) for place in range(8)]
        palette += [sum(bit << shift for bit, channel, shift in bits if channel == one) for one in range(3)]
    for part in ('SegmentationObject', 'Annotations'):
        Path(name, part).mkdir(parents=True)
    image = Image.fromarray(mask)
    image.putpalette(palette)
    image.save(Path(name, 'SegmentationObject', 'a.png'))
    objects = ''.join(
        f'<object><name>{kind}</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax>'
        f'<ymax>{bottom}</ymax></bndbox></object>' for kind, left, top, right, bottom in boxes)
    size = f'<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>'
    Path(name, 'Annotations', 'a.xml').write_text(f'<annotation><filename>a.png</filename>{size}{objects}</annotation>')


seen = {}
ring = np.zeros((HEIGHT, WIDTH), np.uint8)
ring[30:50, 100:120] = 1
ring[35:45, 105:115] = 0
rle = api.encode(np.asfortranarray(ring))
rle['counts'] = rle['counts'].decode()
common = dict(image_id=1, category_id=1, iscrowd=0, area=1, bbox=[1, 1, 1, 1])
coco = dict(
    images=[dict(id=1, file_name='a.png', width=WIDTH, height=HEIGHT)], categories=[dict(id=1, name='car')],
    annotations=[
        dict(id=7, segmentation=[[1, 1, 20, 1, 20, 20, 1, 20], [30, 1, 50, 1, 50, 20, 30, 20]], **common),
        dict(id=8, segmentation=rle, **common)])
Path('coco').mkdir()
Path('coco', 'labels.json').write_text(json.dumps(coco))
first, second, ring_again = convert('coco', 'COCO', dataset_name='labels')
seen['coco'] = [group for _, group, _ in (first, second)], int(ring.sum()), pixels(ring_again[2])
print(f'COCO: two parts of an object have the groups {seen["coco"][0]} (0: none), a ring of {ring.sum()} pixels has '
      f'{seen["coco"][2]}')

mask, boxes = np.zeros((HEIGHT, WIDTH), np.uint8), []
for number in range(1, 21):
    left = 12 * number - 10
    mask[10:20, left : left + 8] = number
    boxes.append(('dog' if number % 2 else 'cat', left, 10, left + 8, 20))
voc('many', mask, boxes)
result = convert('many', 'VOC')
numbers = [(kind, (min(points[::2]) + 10) // 12) for kind, _, points in result]
wrong = sorted(number for kind, number in numbers if boxes[number - 1][0] != kind)
seen['voc'] = len(result), wrong
print(f'VOC: {len(boxes)} objects, {len(result)} afterwards; numbers {wrong} have another class')

mask = np.zeros((HEIGHT, WIDTH), np.uint8)
mask[10:20, 10:18], mask[10:20, 30:38] = 1, 1  # one object in two parts
mask[30:40, 10:20], mask[30:40, 20:30] = 2, 17  # two objects side by side
voc('parts', mask, [('dog', 10, 10, 38, 20), ('cat', 10, 30, 20, 40), ('dog', 20, 30, 30, 40)])
result = sorted((kind, group, pixels(points)) for kind, group, points in convert('parts', 'VOC'))
seen['parts'] = result
print('VOC: a dog in two parts of 80 pixels, and a cat and a dog of 100 side by side, become', result)
if seen != {
    'coco': ([0, 0], 300, 400),
    'voc': (20, [17, 20]),
    'parts': [('cat', 0, 200), ('dog', 0, 80), ('dog', 0, 80)],
}:
    sys.exit('changed: objects are those of the files')
PYTHON
"$folder/venv/bin/python" convert.py > log 2> errors || { cat log errors; exit 1; }
grep '^COCO\|^VOC' log
