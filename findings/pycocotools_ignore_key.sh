#!/usr/bin/env bash
# pycocotools 2.0.11: `COCOeval` does not ignore annotations with `"ignore": 1`. It reads the key and overwrites it in the
# next line with `iscrowd`. Two rules follow where it meets mmdet's `CocoDataset`, which leaves such
# annotations out of training: what a model was never taught counts against it in evaluation. Here one of two objects
# is to be ignored and the other is found exactly: AP is 0.505, with `iscrowd` 1 in place of `ignore` it is 1.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pycocotools==2.0.11 numpy==2.2.6
"$folder/venv/bin/python" <<'PYTHON'
import contextlib
import io
import sys

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

BOXES = [10, 10, 20, 20], [60, 60, 30, 30]


def average_precision(**second):
    """AP of one exact prediction, of the first object, where the second is marked."""
    truth = COCO()
    truth.dataset = dict(
        images=[dict(id=1, width=100, height=100, file_name='a.jpg')],
        categories=[dict(id=1, name='dog')],
        annotations=[
            dict(
                dict(id=number, image_id=1, category_id=1, bbox=box, area=box[2] * box[3], iscrowd=0),
                **(second if number == 2 else {}),
            )
            for number, box in enumerate(BOXES, 1)
        ],
    )
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes([dict(image_id=1, category_id=1, bbox=BOXES[0], score=1.0)])
        evaluation = COCOeval(truth, found, 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(float(evaluation.stats[0]), 3)


figures = dict(ignore=average_precision(ignore=1), iscrowd=average_precision(iscrowd=1))
print('AP with the other object marked by', figures)
if figures != dict(ignore=0.505, iscrowd=1.0):
    sys.exit('changed: "ignore" has an effect')
PYTHON
