#!/usr/bin/env bash
# label-studio-sdk 2.1.2 (Label Studio's own exports): "brush to COCO" of a brush mask fills its holes, makes an
# object of every part of one region, and writes outlines through the centres of border pixels, which COCO's API
# draws a row and a column too small: 121 pixels of a ring of 128, two objects of 35 of one of 96. The brush masks in
# Label Studio's JSON are exact, and COCO has RLE for masks: who trains on the file trains other objects than were painted.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check label-studio-sdk==2.1.2 pycocotools==2.0.11
cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import json
import sys
from pathlib import Path

import numpy as np
from label_studio_sdk.converter import Converter
from label_studio_sdk.converter.brush import decode_rle, mask2rle
from pycocotools import mask as api

ring = np.zeros((32, 48), np.uint8)
ring[3:15, 20:32] = 255
ring[7:11, 24:28] = 0
parts = np.zeros_like(ring)
parts[18:24, 2:10] = parts[25:31, 14:22] = 255
results = [
    dict(type='brushlabels', from_name='brush', to_name='image', original_width=48, original_height=32,
         value=dict(format='rle', rle=mask2rle(mask), brushlabels=['cell']))
    for mask in (ring, parts)
]
kept = [np.reshape(decode_rle(r['value']['rle']), (32, 48, 4))[..., 3] > 0 for r in results]
print('pixels in the JSON:', [int(mask.sum()) for mask in kept])
task = dict(id=1, data=dict(image='a.png'), annotations=[dict(id=1, result=results, completed_by=1)])
Path('tasks.json').write_text(json.dumps([task]))
config = ('<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
          '<Label value="cell"/></BrushLabels></View>')
Converter(config, '.', download_resources=False).convert('tasks.json', 'out', 'BRUSH_TO_COCO', is_dir=False)
annotations = json.loads(Path('out/result_coco.json').read_text())['annotations']
drawn = [int(api.area(api.merge(api.frPyObjects(a['segmentation'], 32, 48)))) for a in annotations]
print(len(annotations), 'objects in COCO, pixels:', drawn, 'area:', [a['area'] for a in annotations])
if [int(mask.sum()) for mask in kept] != [128, 96] or drawn != [121, 35, 35]:
    sys.exit('changed: the objects are those that were painted, or differ otherwise')
PYTHON
