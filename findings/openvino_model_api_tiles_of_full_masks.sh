#!/usr/bin/env bash
# openvino-model-api 0.4.7 (openvino 2026.4.1): InstanceSegmentationTiler squeezes masks that cover the whole tile into
# the object's box. `DETRInstanceSegmentation`, the wrapper of RF-DETR-Seg, knows that such a network gives masks of
# the whole input; the tiler takes that model, switches its mask step off and pastes each mask as if it were Mask
# R-CNN's, which covers the box alone. Boxes, classes and scores are right, so nothing but a look at the masks shows it.
# Below, a network whose masks are the image's white pixels sees tiles of 64x64, each with a square of 16x16: the
# wrapper gives the square, the tiler 16 of its 256 pixels. Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps openvino==2026.4.1 \
    openvino-telemetry==2025.2.0 openvino-model-api==0.4.7 numpy==2.2.6 opencv-python-headless==4.12.0.88 pillow==12.0.0
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import numpy as np
import openvino as ov
from model_api.adapters import OpenvinoAdapter
from model_api.models.instance_segmentation import DETRInstanceSegmentation
from model_api.tilers import InstanceSegmentationTiler
from openvino import opset13 as op

TILE, BOX = 64, [32, 32, 48, 48]


def network():
    """One box, one class, and a mask of the whole input at a quarter of its size: how white its pixels are."""
    image = op.parameter([1, 3, TILE, TILE], np.float32)
    first = op.gather(image, op.constant([0]), op.constant(1))
    blocks = op.reshape(first, op.constant([1, TILE // 4, 4, TILE // 4, 4]), False)
    masks = op.divide(op.reduce_mean(blocks, op.constant([2, 4]), False), op.constant(np.float32(255)))
    nothing = op.multiply(op.reduce_max(image, op.constant([0, 1, 2, 3])), op.constant(np.float32(0)))
    boxes = op.add(op.constant(np.float32([[*BOX, 0.9]])), nothing)
    labels = op.convert(op.add(op.constant(np.float32([0])), nothing), 'i64')
    outputs = dict(boxes=boxes, labels=labels, masks=masks)
    for name, node in outputs.items():
        node.output(0).get_tensor().set_names({name})
    return ov.Model([op.result(node) for node in outputs.values()], [image], 'masks_of_the_input')


ov.save_model(network(), 'network.xml')
adapter = OpenvinoAdapter(ov.Core(), 'network.xml', device='CPU', max_num_requests=1)
model = DETRInstanceSegmentation(adapter, dict(labels=['background', 'cell']), preload=True)
tiler = InstanceSegmentationTiler(model, dict(tile_size=TILE, tiles_overlap=0.0, tile_with_full_img=False))
image = np.zeros((TILE, 2 * TILE, 3), np.uint8)
image[32:48, 32:48] = image[32:48, 96:112] = 255
seen = []
for name, result, drawn in (('a tile alone', model(image[:, :TILE]), image[:, :TILE, 0] > 0),
                            ('two tiles', tiler(image), image[..., 0] > 0)):
    for box, mask in sorted(zip(result.bboxes.tolist(), result.masks.astype(bool)), key=lambda pair: pair[0]):
        x, y, right, bottom = box
        alone = np.zeros_like(drawn)
        alone[y:bottom, x:right] = drawn[y:bottom, x:right]
        seen.append((int(mask.sum()), round(float((mask & alone).sum() / (mask | alone).sum()), 2)))
        print(f'{name}: box {box}, {alone.sum()} pixels drawn in it, {seen[-1][0]} in the mask, IoU {seen[-1][1]}')
alone, *tiled = seen
if alone[1] < 0.95 or len(tiled) != 2 or max(iou for _, iou in tiled) > 0.5:
    sys.exit('changed: tiles give the masks that the model gives')
PYTHON
