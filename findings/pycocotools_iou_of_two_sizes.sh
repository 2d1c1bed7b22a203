#!/usr/bin/env bash
# pycocotools 2.0.11: `mask.iou` of two valid RLEs of different sizes is -1 where their boxes meet, without an
# error, and the evaluation takes that for "no overlap": predictions that are right, at half the size of the
# ground truth (masks of a resized photo, or of a network's output not resized back), have AP 0 and no word of
# it. `mask.merge` of the same two returns a mask of size 0 x 0. Callers have to compare sizes themselves.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pycocotools==2.0.11 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import sys

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


IMAGE = dict(id=1, height=32, width=32)


def square(side):
    pixels = np.zeros((side, side), np.uint8)
    pixels[: side // 2, : side // 2] = 1
    return mask.encode(np.asfortranarray(pixels))


def ap(truth, found):
    sets = []
    for rle in truth, found:
        label = dict(id=1, image_id=1, category_id=1, iscrowd=0, score=1.0)
        label.update(segmentation=rle, area=float(mask.area(rle)), bbox=mask.toBbox(rle).tolist())
        coco = COCO()
        coco.dataset = dict(images=[IMAGE], categories=[dict(id=1)], annotations=[label])
        coco.createIndex()
        sets.append(coco)
    evaluation = COCOeval(*sets, 'segm')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


iou = mask.iou([square(16)], [square(32)], [0]).tolist()
merged = mask.merge([square(16), square(32)])
with contextlib.redirect_stdout(io.StringIO()):
    same, other = ap(square(32), square(32)), ap(square(32), square(16))
print('IoU of 16x16 and 32x32:', iou, 'merged:', merged['size'])
print('AP at the same size:', round(same, 9), 'at half the size:', other)
if iou != [[-1.0]] or merged['size'] != [0, 0] or round(same, 9) != 1 or other:
    sys.exit('changed: masks of two sizes are no longer compared in silence')
PYTHON
