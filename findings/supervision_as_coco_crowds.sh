#!/usr/bin/env bash
# supervision 0.31.2: `DetectionDataset.as_coco` writes an object with a hole, or in two parts, with iscrowd=1, "a group
# that nobody separated". COCO's evaluation ignores such objects and trainers leave them out, so that AP rises and
# objects of that form are never learned. Other objects become polygons through the centres of border pixels, which COCO's
# API draws a row and a column too small (81 of 100 pixels), with a box that is a pixel too small. `as_yolo` makes two objects
# of the two parts. Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check supervision==0.31.2 opencv-python-headless==4.12.0.88 pycocotools==2.0.11
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
from pathlib import Path

import numpy as np
import supervision as sv
from pycocotools import mask as api

masks = np.zeros((3, 32, 48), bool)
masks[0, 3:13, 4:14] = True
masks[1, 3:15, 20:32] = True
masks[1, 7:11, 24:28] = False
masks[2, 18:24, 2:10] = masks[2, 25:31, 14:22] = True
found = sv.Detections(xyxy=sv.mask_to_xyxy(masks), mask=masks, class_id=np.zeros(3, int))
dataset = sv.DetectionDataset(['cell'], {'a.png': np.zeros((32, 48, 3), np.uint8)}, {'a.png': found})
dataset.as_coco(None, 'coco.json')
dataset.as_yolo(None, 'labels', None)
seen = []
for kind, mask, ann in zip(('whole', 'hole', 'parts'), masks, json.loads(Path('coco.json').read_text())['annotations']):
    rle = api.frPyObjects(ann['segmentation'], 32, 48)
    rle = api.merge(rle) if isinstance(rle, list) else rle
    seen.append((int(api.area(rle)), ann['iscrowd']))
    print(kind, int(mask.sum()), 'pixels; in COCO', seen[-1][0], 'pixels, iscrowd', ann['iscrowd'], 'bbox', ann['bbox'])
lines = Path('labels/a.txt').read_text().strip().splitlines()
print('lines in YOLO:', len(lines))
if seen != [(81, 0), (128, 1), (96, 1)] or len(lines) != 4:
    sys.exit('changed: holes and parts are objects as others are')
PYTHON
