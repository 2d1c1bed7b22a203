#!/usr/bin/env bash
# labelme2yolo 0.4.0: masks of LabelMe (shape type "mask", which its AI tools can make) become boxes that lie elsewhere.
# With `--output_format polygon`, for training of instance segmentation, it writes the shape's two points, which are the
# corners of the mask's box, as if they were its outline; the mask itself, in the same JSON, it does not read. A line of
# a class and four numbers is no polygon to YOLO's readers: it is a box, by its centre, width and height. The upper left
# corner becomes the centre, the lower right one the size: a disc of 20 pixels in an image of 200 x 160 becomes a box of
# up to 0.94 of a side, whose IoU with the disc's own box is between 0.03 and 0.27, and it has no mask. Polygons beside
# it are right, and the log counts no failures. With `--output_format bbox` boxes of masks are right but for a row and a
# column. Its other command, `labelme2coco`, leaves masks out, without a word.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check labelme2yolo==0.4.0 numpy==2.2.6 pillow==12.0.0
cd "$folder"
cat > convert.py <<'PYTHON'
import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH, SIDE = 160, 200, 20
CORNERS = [(10, 10), (90, 20), (170, 10), (20, 120), (90, 70), (160, 130)]  # upper left ones, one disc an image
TRIANGLE = [[60.0, 150.0], [80.0, 150.0], [70.0, 130.0]]
LABELS = ['mask', 'triangle']

y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
buffer = io.BytesIO()
Image.fromarray((y**2 + x**2 < (SIDE / 2) ** 2).astype(np.uint8) * 255).save(buffer, 'PNG')
disc = base64.b64encode(buffer.getvalue()).decode()


def shape(label, kind, points, mask=None):
    return dict(label=label, shape_type=kind, points=points, mask=mask, group_id=None, flags={}, description='')


Path('labels').mkdir()
for number, (left, top) in enumerate(CORNERS):
    Image.new('RGB', (WIDTH, HEIGHT)).save(f'labels/{number}.png')
    corners = [[left, top], [left + SIDE - 1, top + SIDE - 1]]  # LabelMe's: the mask's first and last pixel
    shapes = [shape('mask', 'mask', corners, disc), shape('triangle', 'polygon', TRIANGLE)]
    Path(f'labels/{number}.json').write_text(json.dumps(dict(
        version='5.5.0', flags={}, shapes=shapes, imagePath=f'{number}.png', imageData=None, imageHeight=HEIGHT,
        imageWidth=WIDTH)))


def run(command, *options):
    command = [str(Path(sys.executable).parent / command), '--json_dir', 'labels', *options, *LABELS]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not any(word in result.stdout + result.stderr for word in ('WARN', 'ERROR')), result


def iou(one, other):
    """Of two boxes: left, top, right, bottom."""
    width, height = (min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis]) for axis in (0, 1))
    common = max(width, 0) * max(height, 0)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return common / (area - common)


def read(folder):
    """By YOLO's rules: five numbers are a class and a box, more are a class and a polygon."""
    masks, triangles, sizes = [], 0, []
    for number, (left, top) in enumerate(CORNERS):
        (file,) = Path(folder, 'labels').glob(f'*/{number}_*.txt')
        for line in file.read_text().splitlines():
            kind, *values = line.split()
            values = np.array(values, float).reshape(-1, 2) * (WIDTH, HEIGHT)
            if LABELS[int(kind)] == 'triangle':
                triangles += len(values) == 3 and np.abs(values - TRIANGLE).max() < 0.01
                continue
            assert len(values) == 2, 'four numbers after the class'
            centre, size = values
            box = [*np.clip(centre - size / 2, 0, None), *np.minimum(centre + size / 2, (WIDTH, HEIGHT))]
            sizes.append(max(size / (WIDTH, HEIGHT)))
            masks.append(iou(box, (left, top, left + SIDE, top + SIDE)))
    return masks, triangles, max(sizes)


run('labelme2yolo', '--output_format', 'polygon', '--output_dir', 'polygons')
run('labelme2yolo', '--output_format', 'bbox', '--output_dir', 'boxes')
run('labelme2coco', '--output_dir', 'coco')
masks, triangles, size = read('polygons')
boxes, _, _ = read('boxes')
parts = [json.loads(file.read_text()) for file in Path('coco', 'annotations').glob('*.json')]
in_coco = sum(len(part['annotations']) for part in parts)
print('polygon: each mask is a line of five numbers; IoUs of that box with its own:', *(f'{one:.2f}' for one in masks))
print(f'polygon: the largest has {size:.2f} of a side; {triangles} of {len(CORNERS)} triangles are right')
print('bbox: IoUs of the boxes of masks:', *(f'{one:.2f}' for one in boxes))
print(f'labelme2coco: {in_coco} objects of {2 * len(CORNERS)}')
assert triangles == len(CORNERS) == len(masks) == len(boxes) and min(boxes) > 0.85
if not (max(masks) < 0.3 and in_coco == len(CORNERS)):
    sys.exit('changed: masks are masks, or left out')
PYTHON
"$folder/venv/bin/python" convert.py
