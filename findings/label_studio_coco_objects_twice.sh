#!/usr/bin/env bash
# label-studio-sdk 2.1.2: a COCO file that goes through Label Studio comes back with every object twice, though nobody
# edited it. The SDK's converter from COCO makes a rectangle of `bbox` and a polygon of each part of `segmentation`,
# regions that do not know of each other; its export to COCO makes an annotation of each region, those of rectangles
# with `"segmentation": []`. Three objects, one of them in two parts, become seven, on which exact predictions have a
# box AP of 0.43. The only message is that segmentation is experimental. The export also numbers annotations from 0,
# which pycocotools 2.0.11 takes for "not matched": a prediction that finds object 0 counts as false. A file of four
# polygons that were drawn in Label Studio has an AP of 0.56 against itself, and of 1 when numbered from 1. Run without
# the server, which keeps regions as they are and exports by the same code. Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check label-studio-sdk==2.1.2 pycocotools==2.0.11
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import copy
import io
import json
import sys
from pathlib import Path

from label_studio_sdk.converter import Converter
from label_studio_sdk.converter.imports.coco import convert_coco_to_ls
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

PARTS = [[4, 3, 10, 10]], [[20, 4, 8, 6], [32, 4, 8, 6]], [[10, 20, 12, 8]]  # rectangles of each object


def annotation(number, parts):
    left, top = (min(part[axis] for part in parts) for axis in (0, 1))
    right, bottom = (max(part[axis] + part[axis + 2] for part in parts) for axis in (0, 1))
    return dict(
        id=number, image_id=1, category_id=1, iscrowd=0, area=sum(w * h for _, _, w, h in parts),
        bbox=[left, top, right - left, bottom - top],
        segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h] for x, y, w, h in parts])


def to_coco(name, tasks):
    """Label Studio's COCO export of tasks and the regions that its project keeps of them."""
    Path(f'{name}.json').write_text(json.dumps(tasks))
    converter = Converter('tasks.label_config.xml', '.', download_resources=False)
    converter.convert(f'{name}.json', name, 'COCO', is_dir=False)
    return json.loads(Path(name, 'result.json').read_text())


def box_ap(content, boxes):
    """Box AP where these boxes are what was predicted, with score 1."""
    (image,), (category,) = content['images'], content['categories']
    found = [dict(image_id=image['id'], category_id=category['id'], bbox=list(box), score=1.0) for box in boxes]
    truth = COCO()
    truth.dataset = copy.deepcopy(content)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(float(evaluation.stats[0]), 2)


objects = [annotation(number, parts) for number, parts in enumerate(PARTS, start=1)]
source = dict(images=[dict(id=1, file_name='a.png', width=48, height=32)], categories=[dict(id=1, name='cell')],
              annotations=objects)
Path('coco.json').write_text(json.dumps(source))
with contextlib.redirect_stdout(io.StringIO()):
    convert_coco_to_ls('coco.json', 'tasks.json', image_root_url='/data/local-files/?d=photos/')
(task,) = json.loads(Path('tasks.json').read_text())
task['id'] = 1
back = to_coco('back', [task])
empty = sum(not each['segmentation'] for each in back['annotations'])
counts = len(objects), len(back['annotations']), empty
figures = [box_ap(back, [each['bbox'] for each in objects])]
print(f'{counts[0]} objects went in, {counts[1]} came out, {empty} of them without a mask; '
      f'box AP of exact predictions: {figures[0]}')

(regions,) = task['annotations']
regions['result'] = [region for region in regions['result'] if region['type'] == 'polygonlabels']
polygons = to_coco('polygons', [task])
numbers = [each['id'] for each in polygons['annotations']]
for shift in (0, 1):
    for number, each in zip(numbers, polygons['annotations']):
        each['id'] = number + shift
    figures.append(box_ap(polygons, [each['bbox'] for each in polygons['annotations']]))
print(f'polygons alone: ids {numbers}, box AP of the file against itself {figures[1]}; numbered from 1: {figures[2]}')
if counts != (3, 7, 3) or numbers[0] != 0 or figures != [0.43, 0.56, 1.0]:
    sys.exit('changed: an object is one annotation, and they are numbered from 1')
PYTHON
