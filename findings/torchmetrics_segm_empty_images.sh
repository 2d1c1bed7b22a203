#!/usr/bin/env bash
# torchmetrics 1.9.0: `MeanAveragePrecision(iou_type='segm')` leaves images without a ground-truth mask out of the
# evaluation, with either backend, so that false positives there cost nothing. Of ten images below one has an object,
# which is found with score 0.5; in each of the other nine something is predicted with score 0.9. The mask AP is 1.0. The
# box AP of the same predictions is 0.1, and so is the mask AP with `iou_type=('bbox', 'segm')`, as COCO's own
# evaluation has it where the empty images are listed. Whoever evaluates masks alone on images of which many are empty
# (defects, cells, pseudo-labels) gets a figure that is too high, and no message. Installs torch (several GB).
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 \
    torchmetrics==1.9.0 pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.2.6
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import torch
from torchmetrics.detection import MeanAveragePrecision


def labels(*boxes, **more):
    """Labels of one image of 64 x 64 pixels: each object fills its box."""
    masks = torch.zeros(len(boxes), 64, 64, dtype=torch.bool)
    for mask, (x, y, right, bottom) in zip(masks, boxes):
        mask[y:bottom, x:right] = True
    return dict(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        masks=masks,
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        **more,
    )


box = (10, 20, 30, 50)
truth = [labels(box)] + [labels()] * 9
found = [labels(box, scores=torch.tensor([0.5]))] + [labels(box, scores=torch.tensor([0.9]))] * 9
as_described = True
for backend in ('pycocotools', 'faster_coco_eval'):
    figures = {}
    for iou_type in ('segm', 'bbox', ('bbox', 'segm')):
        metric = MeanAveragePrecision(iou_type=iou_type, backend=backend)
        for each_found, each_truth in zip(found, truth):
            metric.update([each_found], [each_truth])
        result = metric.compute()
        figures[iou_type] = round(result['map' if 'map' in result else 'segm_map'].item(), 4)
    print(f'{backend}: mask AP {figures["segm"]}, box AP {figures["bbox"]}, '
          f'mask AP computed together with box AP {figures["bbox", "segm"]}')
    as_described &= list(figures.values()) == [1.0, 0.1, 0.1]
if not as_described:
    sys.exit('changed: false positives on empty images count')
PYTHON
