#!/usr/bin/env bash
# rfdetr 1.11.2 with kornia 0.9.0: `augmentation_backend="kornia"` (or "auto" on a GPU) trains on boxes that do not lie
# around their masks. RF-DETR's boxes end behind the last pixel (xyxy); it hands them to Kornia as `bbox_xyxy`, where a
# box ends on the last pixel, so that a flip maps x to W - 1 - x. Of an object of 10 x 10 pixels a horizontal flip puts
# the box one pixel too far left, a vertical flip one too far up: IoU 0.82 with the object, while image and mask are
# right. With the same `aug_config` the Albumentations backend gives the exact box. A backend is chosen for its speed;
# this one teaches other boxes on each flipped image. Below, the functions that the training calls.
# Installs torch (several GB). Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 \
    "rfdetr[augment]==1.11.2" kornia==0.9.0 albumentations==2.0.8 transformers==5.24.0 numpy==2.2.6 \
    opencv-python-headless==4.12.0.88
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import logging
import sys

import numpy as np
import torch
from PIL import Image
from rfdetr.datasets.kornia_transforms import build_kornia_pipeline, collate_boxes, collate_masks, unpack_boxes
from rfdetr.datasets.transforms import AlbumentationsWrapper

logging.disable(logging.INFO)
SIDE, CPU = 64, torch.device('cpu')
BOX = x, y, right, bottom = 4, 10, 14, 20


def target():
    masks = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    masks[0, y:bottom, x:right] = True
    return dict(boxes=torch.tensor([BOX], dtype=torch.float32), masks=masks, labels=torch.tensor([0]))


def albumentations(config):
    augmented = target()
    image = Image.fromarray(augmented['masks'][0].numpy().astype(np.uint8) * 255).convert('RGB')
    for transform in AlbumentationsWrapper.from_config(config):
        image, augmented = transform(image, augmented)
    return augmented


def kornia(config):
    targets = [target()]
    images = targets[0]['masks'].float().expand(1, 3, SIDE, SIDE).clone()
    boxes, valid = collate_boxes(targets, CPU)
    masks = collate_masks(targets, CPU, n_max=1, image_height=SIDE, image_width=SIDE)
    images, boxes, masks = build_kornia_pipeline(config, resolution=SIDE, with_masks=True)(images, boxes, masks)
    assert ((images[0, 0] > 0.5) == (masks[0, 0] > 0.5)).all(), 'the mask follows the image'
    return unpack_boxes(boxes, valid, targets, SIDE, SIDE, masks_aug=masks)[0]


def box_of(mask):
    rows, columns = np.nonzero(mask.numpy())
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


shifts = {}
for name in ('HorizontalFlip', 'VerticalFlip'):
    for backend in (albumentations, kornia):
        result = backend({name: dict(p=1.0)})
        mask, box = box_of(result['masks'][0]), result['boxes'][0].round().int().tolist()
        shifts[name, backend.__name__] = [one - other for one, other in zip(box, mask)]
        print(f'{name}, {backend.__name__}: mask in {mask}, box {box}')
as_described = list(shifts.values()) == [[0] * 4, [-1, 0, -1, 0], [0] * 4, [0, -1, 0, -1]]
if not as_described:
    sys.exit('changed: boxes lie around their masks, or elsewhere than before')
PYTHON
