#!/usr/bin/env bash
# labelformat 0.1.17 (Lightly's converter): objects that it reads from mask images, `--input-format maskpair`, become
# polygons that run twice around the object, so that every point is there twice. Readers fill a polygon where a ray
# crosses its outline an odd number of times: nothing is left inside. Of a rectangle of 600 pixels COCO's API draws 0,
# and OpenCV, which readers of YOLO-seg call, the 96 of its border. Boxes are a pixel too small, so that they look
# right, and nothing is said. `--segmentation-type rle` is exact, and sets `iscrowd`, which trainers leave out.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check labelformat==0.1.17 pycocotools==2.0.11 \
    numpy==2.2.6 pillow==12.0.0 opencv-python-headless==4.12.0.88
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import numpy as np
from PIL import Image

mask = np.zeros((64, 96), np.uint8)
mask[10:30, 10:40] = 255  # a rectangle
y, x = np.mgrid[:64, :96]
mask[(y - 40) ** 2 + (x - 70) ** 2 < 15**2] = 255  # a disc
for name, pixels in dict(images=np.zeros_like(mask), masks=mask).items():
    Path(name).mkdir()
    Image.fromarray(pixels).save(f'{name}/a.png')
PYTHON
convert() { # what, format and options of the output
    "$folder/venv/bin/labelformat" convert --task instance-segmentation --input-format maskpair --category-names cell \
        --image-glob 'images/*.png' --mask-glob 'masks/*.png' "$@" > log 2>&1 || { cat log; exit 1; }
}
convert --output-format coco --output-file polygons.json
convert --output-format coco --output-file rle.json --segmentation-type rle
convert --output-format yolov8 --output-file yolo/data.yaml
"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as api

HEIGHT, WIDTH = 64, 96
polygons, exact = (json.loads(Path(f'{name}.json').read_text())['annotations'] for name in ('polygons', 'rle'))
lines = Path('yolo/labels/a.txt').read_text().splitlines()
seen = []
for polygon, rle, line in zip(polygons, exact, lines, strict=True):
    (outline,) = polygon['segmentation']
    points = list(zip(outline[::2], outline[1::2]))
    coco = api.merge(api.frPyObjects(polygon['segmentation'], HEIGHT, WIDTH))
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    corners = np.array(line.split()[1:], float).reshape(-1, 2) * (WIDTH, HEIGHT)
    cv2.fillPoly(canvas, [corners.round().astype(np.int32)], 1)
    whole = int(api.area(api.frPyObjects(rle['segmentation'], HEIGHT, WIDTH)))
    seen.append((whole, int(api.area(coco)), int(canvas.sum())))
    print(f'{whole} pixels as RLE, iscrowd {rle["iscrowd"]}; polygon of {len(points)} points, {len(set(points))} of '
          f'them different: {seen[-1][1]} by COCO\'s API, {seen[-1][2]} by OpenCV from YOLO; box {polygon["bbox"]}')
if seen != [(600, 0, 96), (697, 0, 84)]:
    sys.exit('changed: polygons go around their objects once')
PYTHON
