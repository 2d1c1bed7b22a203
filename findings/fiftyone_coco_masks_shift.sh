#!/usr/bin/env bash
# fiftyone 1.22.1: COCO instance masks that are read and written again do not come back, though nobody edited them.
# As run lengths (detections with iscrowd set) a mask gains or loses a column or a row, by where it lies: boxes are kept
# as fractions of the image and rounded down when masks are drawn, and 61 / 224 of 224 is 60.99. As polygons, the default,
# outlines are simplified by 2 pixels, holes are filled, and of a line of 1 x 4 pixels not one is left. No message. Who
# corrects one mask in FiftyOne changes others, too. Run through its importer and exporter, which need no database.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fiftyone==1.22.1 pycocotools==2.0.11
cd "$folder"
FIFTYONE_DO_NOT_TRACK=1 "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import json
import sys
from pathlib import Path

import fiftyone.utils.coco as coco
import numpy as np
from PIL import Image
from pycocotools import mask as api

HEIGHT, WIDTH = 112, 224
masks = np.zeros((3, HEIGHT, WIDTH), bool)
masks[0, 10:30, 61:81] = True  # a rectangle
masks[1, 50:70, 120:140] = True  # a square with a hole
masks[1, 56:64, 126:134] = False
masks[2, 80, 1:5] = True  # a line
Path('in/data').mkdir(parents=True)
Image.new('RGB', (WIDTH, HEIGHT)).save('in/data/a.png')
rles = [api.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
annotations = [
    dict(id=number, image_id=1, category_id=1, iscrowd=0, area=int(api.area(rle)), bbox=api.toBbox(rle).tolist(),
         segmentation=dict(rle, counts=rle['counts'].decode()))
    for number, rle in enumerate(rles, start=1)
]
content = dict(images=[dict(id=1, file_name='a.png', height=HEIGHT, width=WIDTH)],
               categories=[dict(id=1, name='cell')], annotations=annotations)
Path('in/labels.json').write_text(json.dumps(content))
found = {}
for name in ('polygons', 'run lengths'):
    importer = coco.COCODetectionDatasetImporter(dataset_dir='in', label_types='segmentations')
    exporter = coco.COCODetectionDatasetExporter(export_dir=name, export_media=False)
    with importer, exporter:
        for path, metadata, labels in importer:
            for each in labels.detections:
                each['iscrowd'] = int(name == 'run lengths')
            exporter.export_sample(path, labels, metadata=metadata)
    found[name] = []
    for ann, mask in zip(json.loads(Path(name, 'labels.json').read_text())['annotations'], masks):
        rle = ann.get('segmentation')
        if not rle:
            found[name].append(None)
            continue
        rle = api.frPyObjects(rle, HEIGHT, WIDTH)
        drawn = api.decode(api.merge(rle) if isinstance(rle, list) else rle).astype(bool)
        found[name].append((int(drawn.sum()), round(float((drawn & mask).sum() / (drawn | mask).sum()), 3)))
print('pixels that went in:', [int(mask.sum()) for mask in masks])
for name, pixels in found.items():
    print(f'{name}: (pixels, IoU) that came out:', pixels)
pixels = {name: [each and each[0] for each in values] for name, values in found.items()}
if pixels['run lengths'] != [420, 336, 3] or pixels['polygons'][1:] != [367, 0]:
    sys.exit('changed: masks come back as they went in, or differ otherwise')
PYTHON
