#!/usr/bin/env bash
# transformers 5.24.0: `return_coco_annotation=True`, by which Mask2Former, MaskFormer and RF-DETR's port return masks
# as "COCO run-length encoding", gives something else in three ways.
# 1. A list is not COCO's RLE. COCO counts runs of zeros and ones by turns, column after column; these are starts,
#    counted from 1, and lengths of the runs of ones, row after row (Kaggle's kind). pycocotools' `frPyObjects` takes such
#    a list and `area` is right, as every second number is a length; only `decode` raises an error. By COCO's definition
#    the masks have IoUs of at most 0.02 with the objects.
# 2. There is one list more than `segments_info` has entries: the first is the background, -1 in the map, unless objects
#    cover the image. Zipped, every object gets the mask of the one before it.
# 3. It encodes a map in which an object has what others left. The documentation says to set this option where instances
#    overlap. Of two objects that share pixels, with scores of 0.85 and 0.6, Mask2Former and MaskFormer give them to the
#    latter, the less sure one: the last painted wins. RF-DETR's port gives them to the surer one.
# `return_binary_maps=True` has all masks as they are. Below, four rectangles, whose masks a network is sure of.
# Installs torch (several GB). Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 \
    transformers==5.24.0 numpy==2.2.6 pycocotools==2.0.11
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys
from types import SimpleNamespace

import numpy as np
import torch
from pycocotools import mask as mask_utils
from transformers import Mask2FormerImageProcessor, MaskFormerImageProcessor, RfDetrImageProcessor

SIZE = HEIGHT, WIDTH = 96, 192
OBJECTS = {  # score -> top, left, bottom, right; the last two overlap
    0.95: (8, 8, 40, 48), 0.9: (30, 60, 90, 100), 0.85: (10, 120, 60, 180), 0.6: (40, 140, 80, 190)}
BACKGROUND = 'background'


def rectangles():
    masks = np.zeros((len(OBJECTS), HEIGHT, WIDTH), bool)
    for mask, (top, left, bottom, right) in zip(masks, OBJECTS.values()):
        mask[top:bottom, left:right] = True
    return masks


def outputs():
    """What a network returns that is sure of these masks, in one class."""
    masks = torch.from_numpy(np.where(rectangles(), 9.0, -9.0))[None].float()
    scores = torch.tensor(list(OBJECTS))
    odds = torch.log(scores / (1 - scores))
    return SimpleNamespace(
        masks_queries_logits=masks, class_queries_logits=torch.stack([odds, 0 * odds], 1)[None],  # MaskFormer's
        pred_masks=masks, logits=odds[None, :, None])  # RF-DETR's


def as_coco(runs):
    """Runs of zeros and ones by turns, column after column; what is too long is left out."""
    values = np.repeat(np.arange(len(runs)) % 2, runs)[: HEIGHT * WIDTH]
    return np.pad(values, (0, HEIGHT * WIDTH - len(values))).reshape(WIDTH, HEIGHT).T.astype(bool)


def as_starts(runs):
    """Starts, counted from 1, and lengths of runs of ones, row after row."""
    mask = np.zeros(HEIGHT * WIDTH, bool)
    for start, length in zip(runs[::2], runs[1::2]):
        mask[start - 1 : start - 1 + length] = True
    return mask.reshape(HEIGHT, WIDTH)


def iou(one, two):
    return round(float((one & two).sum() / (one | two).sum()), 2)


def nearest(score):
    return min(OBJECTS, key=lambda known: abs(known - score))


truth = dict(zip(OBJECTS, rectangles()))
changed = []
for processor in (Mask2FormerImageProcessor(), MaskFormerImageProcessor(), RfDetrImageProcessor()):
    name = type(processor).__name__.removesuffix('ImageProcessor')
    (coco,), (binary,) = (
        processor.post_process_instance_segmentation(outputs(), target_sizes=[SIZE], **{option: True})
        for option in ('return_coco_annotation', 'return_binary_maps'))
    scores = [nearest(segment['score']) for segment in coco['segments_info']]
    lists = coco['segmentation']
    print(f'{name}: {len(scores)} segments, {len(lists)} lists')
    found = {}
    for score, runs in zip([BACKGROUND, *scores], lists):
        if score == BACKGROUND:
            found[score] = iou(as_starts(runs), ~np.any(rectangles(), 0))
            print('  the first list: IoU with the background', found[score])
            continue
        found[score] = iou(as_starts(runs), truth[score])
        rle = mask_utils.frPyObjects(dict(size=SIZE, counts=[int(run) for run in runs]), *SIZE)
        area = int(mask_utils.area(rle))
        try:
            mask_utils.decode(rle)
            decoded = True
        except ValueError:
            decoded = False
        wrong = iou(as_coco(runs), truth[score])
        print(f'  score {score}: IoU as COCO {wrong}, as starts and lengths {found[score]}; begins with {runs[:4]}; '
              f'pycocotools: area {area} of {int(as_starts(runs).sum())}, decode {"works" if decoded else "fails"}')
        if wrong > 0.2 or decoded or area != as_starts(runs).sum():
            changed.append(f'{name}: the lists are read otherwise')
    loser = 0.6 if name == 'RfDetr' else 0.85
    if len(lists) != len(scores) + 1 or any((value < 1) != (score == loser) for score, value in found.items()):
        changed.append(f'{name}: the number of lists, or who loses pixels')
    maps = np.asarray(binary['segmentation']).astype(bool)
    whole = [iou(mask, truth[nearest(one['score'])]) for mask, one in zip(maps, binary['segments_info'])]
    print('  as binary maps: IoU', whole)
    if whole != [1.0] * len(OBJECTS):
        changed.append(f'{name}: binary maps')
if changed:
    sys.exit('changed: ' + '; '.join(changed))
PYTHON
