#!/usr/bin/env bash
# onedl-mmdetection 3.4.5 (mmdet 3.3.0 alike): `CachedMosaic`, the mosaic that moves instance masks, gives masks of the
# transposed size where `img_scale` is not square: it passes (width, height) on as BitmapMasks.translate's out_shape,
# which is (height, width). Nothing fails in the transform or in PackDetInputs. Here four images of 64x32 (width x
# height) with an object at their right become one of 128x64 with masks of 64x128: the objects of the two images on the
# right lose all their pixels and keep their boxes and labels, and the masks of the others are cut where the image's
# width would go on. With a square img_scale all four masks lie in their boxes. Installs torch (several GB). Exits with
# 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 \
    onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmdetection==3.4.5 faster-coco-eval==1.8.0 pycocotools==2.0.11 \
    cityscapesscripts==2.3.0 numpy==2.2.6 opencv-python-headless==4.12.0.88
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import types


class Operators(types.ModuleType):
    """Stands for mmcv's compiled operators, none of which is called here."""

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


sys.modules['mmcv._ext'] = Operators('mmcv._ext')
import numpy as np
from mmdet.datasets.transforms import CachedMosaic
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks


def image(width, height):
    """One object: columns 40 to 59, rows 10 to 29."""
    mask = np.zeros((1, height, width), np.uint8)
    mask[0, 10:30, 40:60] = 1
    return dict(
        img=np.zeros((height, width, 3), np.uint8),
        gt_bboxes=HorizontalBoxes(np.array([[40, 10, 60, 30]], np.float32)),
        gt_bboxes_labels=np.zeros(1, np.int64),
        gt_ignore_flags=np.zeros(1, bool),
        gt_masks=BitmapMasks(mask, height, width),
    )


def mosaic(width, height):
    """Size of image and masks, and how many pixels of each mask lie in its box."""
    transform = CachedMosaic(img_scale=(width, height), center_ratio_range=(1, 1))
    for _ in range(5):  # the first four fill its cache
        mixed = transform(image(width, height))
    pixels = [
        int(mask[int(y) : int(end), int(x) : int(right)].sum())
        for mask, (x, y, right, end) in zip(mixed['gt_masks'].masks, mixed['gt_bboxes'].tensor.tolist())
    ]
    return mixed['img'].shape[:2], mixed['gt_masks'].masks.shape[1:], pixels


square, wide = mosaic(64, 64), mosaic(64, 32)
for name, (size, masks, pixels) in dict(square=square, wide=wide).items():
    print(f'{name}: image {size}, masks {masks} (height, width), pixels of masks in their boxes {pixels}')
if square != ((128, 128), (128, 128), [400] * 4) or wide != ((64, 128), (128, 64), [400, 0, 400, 0]):
    sys.exit('changed: masks have the size of the image')
PYTHON
