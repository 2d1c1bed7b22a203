#!/usr/bin/env bash
# sahi 0.12.8: `sahi coco slice` (slice_coco), which cuts images and COCO labels into tiles for training, writes other
# masks than it read, also of objects that lie within one tile. Vertices are cut down to whole pixels (COCO has two
# decimals), boxes are not: masks move up and left by up to a pixel. For the small objects that one tiles for, that is
# much: one of 8 x 8 pixels at (20.9, 20.9) has IoU 0.62 with its own label. `iscrowd` is lost: groups become objects.
# An object without a mask gets one, its box. So does one whose mask is a run length, with the message that it "is
# skipped"; COCO's groups are run lengths, and each becomes an object with a rectangular mask.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sahi==0.12.8 pycocotools==2.0.11
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as api

HEIGHT, WIDTH = 100, 200


def polygon(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


y, x = np.mgrid[:HEIGHT, :WIDTH]
disc = api.encode(np.asfortranarray(((y - 30) ** 2 + (x - 150) ** 2 < 400).astype(np.uint8)))
disc = dict(disc, counts=disc['counts'].decode())
annotations = [  # a small object, a group as a polygon, an object without a mask, a group as a run length
    dict(bbox=[20.9, 20.9, 8, 8], segmentation=polygon(20.9, 20.9, 8, 8), area=64, iscrowd=0),
    dict(bbox=[10, 60, 30, 20], segmentation=polygon(10, 60, 30, 20), area=600, iscrowd=1),
    dict(bbox=[60, 60, 30, 20], segmentation=[], area=600, iscrowd=0),
    dict(bbox=api.toBbox(disc).tolist(), segmentation=disc, area=int(api.area(disc)), iscrowd=1),
]
for number, each in enumerate(annotations, start=1):
    each.update(id=number, image_id=1, category_id=1)
content = dict(images=[dict(id=1, file_name='a.png', height=HEIGHT, width=WIDTH)],
               categories=[dict(id=1, name='cell')], annotations=annotations)
Path('in').mkdir()
Path('in/labels.json').write_text(json.dumps(content))
Image.new('RGB', (WIDTH, HEIGHT)).save('in/a.png')
PYTHON
"$folder/venv/bin/sahi" coco slice --image_dir in --dataset_json_path in/labels.json --slice_size 100 \
    --overlap_ratio 0 --output_dir out > log 2>&1 || { cat log; exit 1; }
grep -o 'Segmentation annotation.*supported' log || true
"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
from pathlib import Path

from pycocotools import mask as api

(path,) = Path('out').rglob('*.json')
content = json.loads(path.read_text())
tiles = [each['file_name'] for each in content['images']]
before = json.loads(Path('in/labels.json').read_text())['annotations']
seen = []
for old, new in zip(before, content['annotations']):
    seen.append((new['bbox'], new['segmentation'], new['iscrowd']))
    print(f"{old['bbox']}, iscrowd {old['iscrowd']}, became {seen[-1]}")
small = [api.merge(api.frPyObjects(each[0]['segmentation'], 100, 100)) for each in (before, content['annotations'])]
iou = float(api.iou(small[:1], small[1:], [0])[0, 0])
print(f'{len(tiles)} tiles, {len(before)} annotations before, {len(content["annotations"])} after;',
      f'IoU of the small object with its label {iou:.3f}, boxes {before[0]["bbox"]} and {seen[0][0]}')
rectangular = [sorted(set(seen[which][1][0][::2])) for which in (2, 3)]
if (round(iou, 2), [each[2] for each in seen]) != (0.62, [0, 0, 0, 0]) or rectangular != [[60, 90], [31, 70]]:
    sys.exit('changed: masks stay, or change otherwise')
PYTHON
