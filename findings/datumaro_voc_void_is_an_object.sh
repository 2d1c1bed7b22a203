#!/usr/bin/env bash
# datumaro 1.13.12: Pascal VOC's void is an object. In VOC's masks the value 255 (the colour 224, 224, 192) means "not
# labeled"; the borders of objects have it. `datum convert` from VOC to COCO makes one more object of it in each image,
# of a class "ignored", out of the borders of all objects together. Who trains on all categories of the file learns it.
# The other way, it numbers the objects of an image past 255 in a picture whose values end there: of 300 cells one
# becomes void, one background, and 44 pairs have one value for both, so that readers see a cell in two places. In both
# directions the command ends with "Dataset exported" and status 0.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "datumaro[cli]==1.13.12"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as api

PERSON, VOID = 15, 255


def colour(value):  # as VOC's development kit has it: the value's bits, in turns, from the top of red, green and blue
    return [sum((value >> 3 * bit + channel & 1) << 7 - bit for bit in range(3)) for channel in range(3)]


palette = [channel for value in range(256) for channel in colour(value)]
Path('palette.json').write_text(json.dumps(palette))

# two persons of 20 x 20 pixels in a border of 2 pixels of void
classes = np.zeros((64, 96), np.uint8)
numbers = np.zeros((64, 96), np.uint8)
for number, x in enumerate((10, 50), start=1):
    for values, value in ((classes, PERSON), (numbers, number)):
        values[8:32, x - 2 : x + 22] = VOID
        values[10:30, x : x + 20] = value
for name, values in (('SegmentationClass', classes), ('SegmentationObject', numbers)):
    picture = Image.fromarray(values)
    picture.putpalette(palette)
    Path('voc', name).mkdir(parents=True)
    picture.save(f'voc/{name}/2007_000001.png')
for name in ('JPEGImages', 'ImageSets/Segmentation'):
    Path('voc', name).mkdir(parents=True)
Image.new('RGB', (96, 64)).save('voc/JPEGImages/2007_000001.jpg')
Path('voc/ImageSets/Segmentation/train.txt').write_text('2007_000001\n')

# 300 cells of 8 x 8 pixels
annotations = []
for place in range(300):
    y, x = divmod(place, 30)
    mask = np.zeros((100, 300), np.uint8, order='F')
    mask[10 * y + 1 : 10 * y + 9, 10 * x + 1 : 10 * x + 9] = 1
    rle = api.encode(mask)
    annotations.append(dict(
        id=place + 1, image_id=1, category_id=1, iscrowd=0, area=64, bbox=[10 * x + 1, 10 * y + 1, 8, 8],
        segmentation=dict(rle, counts=rle['counts'].decode())))
for name in ('annotations', 'images/train'):
    Path('coco', name).mkdir(parents=True)
content = dict(images=[dict(id=1, file_name='a.png', width=300, height=100)],
               categories=[dict(id=1, name='cell')], annotations=annotations)
Path('coco/annotations/instances_train.json').write_text(json.dumps(content))
Image.new('RGB', (300, 100)).save('coco/images/train/a.png')
PYTHON
convert() { # from, folder, to, folder, options
    "$folder/venv/bin/datum" convert -if "$1" -i "$2" -f "$3" -o "$4" -- "${@:5}" > log 2>&1 || { cat log; exit 1; }
    grep -q 'Dataset exported' log
}
convert voc_instance_segmentation voc coco_instances from-voc --segmentation-mode polygons
convert coco_instances coco voc_instance_segmentation from-coco --save-media
"$folder/venv/bin/python" - <<'PYTHON'
import collections
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image


content = json.loads(Path('from-voc/annotations/instances_train.json').read_text())
names = {each['id']: each['name'] for each in content['categories']}
read = [(names[each['category_id']], each['bbox'], each['iscrowd']) for each in content['annotations']]
print('VOC with two persons and their borders of void, to COCO: (class, x y width height, iscrowd)', *read, sep='\n  ')

palette = np.array(json.loads(Path('palette.json').read_text())).reshape(256, 3).tolist()
values = {tuple(colour): value for value, colour in enumerate(palette)}
picture = np.asarray(Image.open('from-coco/SegmentationObject/a.png').convert('RGB'))
cells = collections.Counter(values[tuple(picture[10 * (place // 30) + 5, 10 * (place % 30) + 5].tolist())]
                            for place in range(300))
void, background = cells.pop(255), cells.pop(0)
counts = collections.Counter(cells.values())
print(f'300 cells from COCO to VOC: {void} is void, {background} is background, {counts[1]} have a value of their own, '
      f'{counts[2]} values belong to two cells')
if [each[0] for each in read] != ['person', 'person', 'ignored'] or read[2][1:] != ([8.0, 8.0, 64.0, 24.0], 0):
    sys.exit('changed: void is no object of its own')
if (void, background, dict(counts)) != (1, 1, {1: 210, 2: 44}):
    sys.exit('changed: many objects are written otherwise')
PYTHON
