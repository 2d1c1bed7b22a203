#!/usr/bin/env bash
# onedl-mmdetection 3.4.5 (mmdet 3.3.0 alike), and torchvision 0.29.1's transforms v2: when an image and its instance
# masks are resized together, the masks move to the bottom right of what the image shows, by half a pixel of the new image
# at most factors, always in this direction. Images are sampled at the centres of pixels, masks at their corners:
# OpenCV's INTER_NEAREST and torch's "nearest" take source pixel floor(x / factor), where the centre is at
# (x + 0.5) / factor. Over 12 factors from 0.31 to 0.97, discs of 24 pixels have a mean IoU of 0.87 with the disc in the
# resized image; sampled at centres (INTER_NEAREST_EXACT; torchvision's masks have no such option) 0.99, and nothing
# moves on average. At a factor of 0.4 it is 0.86 against 1.00. Doubling moves nothing, which hides it; every
# RandomResize of a training pipeline does, and boxes, which are multiplied by the factor, stay on the image.
# Below, the same disc as image and as mask. Installs torch (several GB). Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 \
    onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmdetection==3.4.5 faster-coco-eval==1.8.0 pycocotools==2.0.11 \
    cityscapesscripts==2.3.0 numpy==2.2.6 opencv-python-headless==4.12.0.88
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys
import types


class Operators(types.ModuleType):
    """Stands for mmcv's compiled operators, none of which is called here."""

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


sys.modules['mmcv._ext'] = Operators('mmcv._ext')
import cv2
import numpy as np
import torch
from mmdet.datasets.transforms import Resize
from mmdet.structures.mask import BitmapMasks
from torchvision import tv_tensors
from torchvision.transforms import v2

SIDE, NUMBER = 400, 20


def discs(radius):
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for y, x in rng.uniform(radius + 2, SIDE - radius - 2, (NUMBER, 2)):
        yield ((rows - y) ** 2 + (columns - x) ** 2 < radius**2).astype(np.uint8)


def by_mmdet(disc, factor):
    image = np.repeat(255 * disc[..., None], 3, 2)
    results = dict(img=image, img_shape=disc.shape, gt_masks=BitmapMasks([disc], *disc.shape))
    results = Resize(scale_factor=float(factor), keep_ratio=True)(results)
    return results['img'][..., 0] > 127, results['gt_masks'].masks[0] > 0


def by_torchvision(disc, factor):
    image = tv_tensors.Image(torch.from_numpy(255 * disc)[None].repeat(3, 1, 1))
    mask = tv_tensors.Mask(torch.from_numpy(disc)[None])
    # antialias=False: the image as OpenCV resizes it, which makes no difference to the masks
    image, mask = v2.Resize([round(SIDE * factor)] * 2, antialias=False)(image, mask)
    return image[0].numpy() > 127, mask[0].numpy() > 0


def at_centres(disc, factor):
    size = (round(SIDE * factor),) * 2
    return cv2.resize(255 * disc, size) > 127, cv2.resize(disc, size, interpolation=cv2.INTER_NEAREST_EXACT) > 0


def compare(resize, radius, factor):
    """Mean IoU of mask and image, and how far the mask is to the right of the disc in the image and below it."""
    ious, shifts = [], []
    for disc in discs(radius):
        seen, mask = resize(disc, factor)
        ious.append((seen & mask).sum() / (seen | mask).sum())
        shifts.append(np.argwhere(mask).mean(0) - np.argwhere(seen).mean(0))
    down, right = np.mean(shifts, 0)
    return float(np.mean(ious)), float(right), float(down)


WAYS = dict(mmdet=by_mmdet, torchvision=by_torchvision, centres=at_centres)
changed = []


def show(title, factors):
    """Means over the factors, printed."""
    print(f'{title}, discs of 24 pixels:')
    figures = {name: np.mean([compare(resize, 12, factor) for factor in factors], 0) for name, resize in WAYS.items()}
    for name, (iou, right, down) in figures.items():
        print(f'  {name}: IoU {iou:.2f}, {right:+.2f} to the right, {down:+.2f} down')
    return figures


for name, (iou, right, down) in show('factor 0.4', [0.4]).items():
    if (min(right, down) > 0.3 and iou < 0.9) != (name != 'centres'):
        changed.append(f'{name} at 0.4')
for name, (iou, right, down) in show('factor 2', [2.0]).items():
    if max(abs(right), abs(down)) > 0.01:
        changed.append(f'{name} at 2')
for name, (iou, right, down) in show('12 factors from 0.31 to 0.97', np.linspace(0.31, 0.97, 12)).items():
    if (min(right, down) > 0.4) != (name != 'centres') or (name == 'centres' and max(abs(right), abs(down)) > 0.05):
        changed.append(f'{name} on average')
if changed:
    sys.exit('changed: ' + ', '.join(changed))
PYTHON
