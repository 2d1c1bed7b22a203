#!/usr/bin/env bash
# datumaro 1.13.12 (the library behind many conversions): `datum convert` from Pascal VOC's instance masks to COCO writes
# every object with iscrowd=1, "a group that nobody separated", because it is a mask and not a polygon. The masks are
# exact, and nothing is learned from them: COCO's evaluation ignores crowds and trainers leave them out. With
# `--segmentation-mode polygons` it is 0, and the hole of a ring is filled and a row and a column are lost.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "datumaro[cli]==1.13.12"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import numpy as np
from datumaro import Dataset, DatasetItem, Image, Mask

mask = np.zeros((32, 48), bool)
mask[3:15, 20:32] = True
mask[7:11, 24:28] = False
item = DatasetItem('a', subset='train', media=Image.from_numpy(np.zeros((32, 48, 3), np.uint8), ext='.png'),
                   annotations=[Mask(mask, label=0, id=1, group=1)])
Dataset.from_iterable([item], categories=['cell']).export('voc', 'voc', save_media=True)
PYTHON
for mode in guess polygons; do
    "$folder/venv/bin/datum" convert -if voc_instance_segmentation -i voc -f coco_instances -o "$mode" \
        -- --segmentation-mode "$mode" > log 2>&1 || { cat log; exit 1; }
done
"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
from pathlib import Path

from pycocotools import mask as api

seen = []
for mode in ('guess', 'polygons'):
    (ann,) = json.loads(Path(mode, 'annotations/instances_train.json').read_text())['annotations']
    rle = api.frPyObjects(ann['segmentation'], 32, 48)
    rle = api.merge(rle) if isinstance(rle, list) else rle
    seen.append((int(api.area(rle)), ann['iscrowd']))
    print(mode, '128 pixels in VOC; in COCO', seen[-1][0], 'pixels, iscrowd', seen[-1][1])
if seen[0] != (128, 1):
    sys.exit('changed: a mask is an object')
PYTHON
