#!/usr/bin/env bash
# datumaro 1.13.12: `datum convert` from and to Cityscapes loses the instances. In Cityscapes' `*_instanceIds.png` the
# pixels of an object have the value class * 1000 + number; stuff, and groups that nobody took apart, have the class
# alone. Its reader looks for classes alone: of a road and two cars the road is left. Its writer writes classes alone:
# two cars become a group, which Cityscapes' evaluation ignores, and where objects are polygons, as in most COCO files,
# no labels are written at all. Each command ends with "Dataset exported" and status 0.
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

HEIGHT, WIDTH, ROAD, CAR = 64, 96, 7, 26
CARS = (10, 10, 20, 20), (50, 10, 30, 20)  # x, y, width, height

values = np.zeros((HEIGHT, WIDTH), np.uint16)
values[40:] = ROAD
for number, (x, y, w, h) in enumerate(CARS):
    values[y : y + h, x : x + w] = CAR * 1000 + number
labels = Path('cityscapes/gtFine/train/town')
images = Path('cityscapes/leftImg8bit/train/town')
for name in (labels, images):
    name.mkdir(parents=True)
Image.fromarray(values).save(labels / 'town_000000_000000_gtFine_instanceIds.png')
Image.new('RGB', (WIDTH, HEIGHT)).save(images / 'town_000000_000000_leftImg8bit.png')

for kind in ('rle', 'polygons'):
    annotations = []
    for number, (x, y, w, h) in enumerate(CARS, start=1):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8, order='F')
        mask[y : y + h, x : x + w] = 1
        rle = api.encode(mask)
        annotations.append(dict(
            id=number, image_id=1, category_id=1, iscrowd=0, area=w * h, bbox=[x, y, w, h],
            segmentation=dict(rle, counts=rle['counts'].decode()) if kind == 'rle' else
            [[x, y, x + w, y, x + w, y + h, x, y + h]]))
    content = dict(images=[dict(id=1, file_name='a.png', width=WIDTH, height=HEIGHT)],
                   categories=[dict(id=1, name='car')], annotations=annotations)
    for name in ('annotations', 'images/train'):
        Path(kind, name).mkdir(parents=True)
    Path(kind, 'annotations/instances_train.json').write_text(json.dumps(content))
    Image.new('RGB', (WIDTH, HEIGHT)).save(f'{kind}/images/train/a.png')
PYTHON
convert() { # from, folder, to, folder
    "$folder/venv/bin/datum" convert -if "$1" -i "$2" -f "$3" -o "$4" -- --save-media > log 2>&1 || { cat log; exit 1; }
}
convert cityscapes cityscapes coco_instances from-cityscapes
convert coco_instances rle cityscapes from-rle
convert coco_instances polygons cityscapes from-polygons
"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

(path,) = Path('from-cityscapes').rglob('instances_*.json')
coco = json.loads(path.read_text())
names = {each['id']: each['name'] for each in coco['categories']}
objects = [(names[each['category_id']], int(each['area'])) for each in coco['annotations']]
print('Cityscapes with a road of 2304 pixels and cars of 400 and 600 pixels, to COCO:', objects)
values = {}
for kind in ('rle', 'polygons'):
    maps = Path(f'from-{kind}').rglob('*_instanceIds.png')
    values[kind] = [np.unique(np.asarray(Image.open(each)), return_counts=True) for each in maps]
    values[kind] = [dict(zip(*(part.tolist() for part in counts))) for counts in values[kind]]
    print(f'COCO with the two cars as {kind}, to Cityscapes: pixels of each value of the instance map', values[kind])
if objects != [('road', 2304)] or values != dict(rle=[{0: 5144, 1: 1000}], polygons=[]):
    sys.exit('changed: objects are told apart')
PYTHON
