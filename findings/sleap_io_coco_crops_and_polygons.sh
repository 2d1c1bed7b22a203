#!/usr/bin/env bash
# sleap-io 0.9.5 (the data library of SLEAP; it has masks and label images, too): `save_coco` writes other masks than it
# is given. A mask of a crop knows where it lies in the image (`offset`), and its own `bbox` counts it in. In the file
# it lies in the upper left corner, as a run length of the size of the crop, with a box that agrees: a cell of 20 x 10
# pixels at (65, 55) is one at (5, 5), and in an image of 120 x 100 the size of the run length is [20, 30].
# `load_coco` makes masks of polygons that are a column too wide: a row is drawn if its centre is inside, and in it all
# pixels that the polygon touches. Discs of 12 pixels' diameter have 125 pixels in place of 113, a mean IoU of 0.90 with
# COCO's own masks, and neighbours that only touch share a column. Read and saved, every object has iscrowd=1, so that
# predictions that equal them have an AP of -1, "nothing to find". And label images, the form of the results of Cellpose
# and StarDist, are left out: `annotations` is empty. No message is given. Who works on crops around animals or cells
# trains on masks that lie beside them. Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sleap-io==0.9.5 pycocotools==2.0.11 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import json
import sys
import warnings

import numpy as np
import sleap_io
from PIL import Image
from pycocotools import mask as api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sleap_io.model.label_image import UserLabelImage
from sleap_io.model.mask import UserSegmentationMask

HEIGHT, WIDTH = 100, 120
TURNS = np.arange(0, 2 * np.pi, 2 * np.pi / 48)
Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save('a.png')


def saved(name, labels):
    """The annotations of the COCO file that the labels become."""
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # there is none
        sleap_io.save_coco(labels, name)
    with open(name) as file:
        return json.load(file)['annotations']


def frame(**parts):
    made = sleap_io.LabeledFrame(video=sleap_io.Video.from_filename(['a.png']), frame_idx=0)
    for name, values in parts.items():
        getattr(made, name).extend(values)
    return sleap_io.Labels(labeled_frames=[made])


def read(polygons):
    """Labels of a COCO file with these, and their masks by COCO's API."""
    annotations = [
        dict(id=number, image_id=1, category_id=1, iscrowd=0, area=1, bbox=[0, 0, 1, 1], segmentation=[points.tolist()])
        for number, points in enumerate(polygons, 1)]
    images = [dict(id=1, file_name='a.png', width=WIDTH, height=HEIGHT)]
    with open('in.json', 'w') as file:
        json.dump(dict(images=images, categories=[dict(id=1, name='cell')], annotations=annotations), file)
    exact = [api.merge(api.frPyObjects([points.tolist()], HEIGHT, WIDTH)) for points in polygons]
    return sleap_io.load_coco('in.json'), exact


seen = {}
crop = np.zeros((20, 30), bool)
crop[5:15, 5:25] = True
mask = UserSegmentationMask.from_numpy(crop, offset=(60, 50), category='cell')
(written,) = saved('crop.json', frame(masks=[mask]))
seen['crop'] = [*mask.bbox], written['bbox'], written['segmentation']['size']
print(f'a mask of a crop: box {seen["crop"][0]} before, {seen["crop"][1]} in COCO, where its size is {seen["crop"][2]}')

centres = np.random.default_rng(0).uniform(10, 85, (20, 2))
discs = [(6 * np.stack([np.cos(TURNS), np.sin(TURNS)], axis=1) + centre).ravel() for centre in centres]
labels, exact = read(discs)
written = saved('discs.json', labels)
masks = [api.frPyObjects(one['segmentation'], HEIGHT, WIDTH) for one in written]
ious = api.iou(masks, exact, [0] * len(exact)).diagonal()
seen['discs'] = round(float(api.area(exact).mean())), round(float(api.area(masks).mean())), round(float(ious.mean()), 2)
print(f'discs: {seen["discs"][0]} pixels by COCO, {seen["discs"][1]} by sleap-io, mean IoU {seen["discs"][2]}')

with contextlib.redirect_stdout(io.StringIO()):
    truth = COCO('discs.json')
    results = [dict(image_id=1, category_id=1, score=0.9, segmentation=one) for one in masks]
    for one in results:
        one['segmentation'] = {**one['segmentation'], 'counts': one['segmentation']['counts'].decode()}
    evaluation = COCOeval(truth, truth.loadRes(results), 'segm')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
seen['crowds'] = sum(one['iscrowd'] for one in written), float(evaluation.stats[0])
print(f'{seen["crowds"][0]} of {len(written)} are crowds, AP of exact predictions {seen["crowds"][1]}')

sides = [np.array([left, 20, right, 20, right, 30, left, 30]) for left, right in ((20, 30.5), (30.5, 40))]
labels, exact = read(sides)
one, other = (mask.data for mask in labels.labeled_frames[0].masks)
seen['neighbours'] = int((one & other).sum()), int(api.area(api.merge(exact, True)))
print(f'neighbours that touch share {seen["neighbours"][0]} pixels, by COCO {seen["neighbours"][1]}')

cells = np.zeros((HEIGHT, WIDTH), np.int32)
cells[10:20, 10:20], cells[40:60, 40:50] = 1, 2
seen['label image'] = len(saved('cells.json', frame(label_images=[UserLabelImage.from_numpy(cells)])))
print('a label image of 2 cells:', seen['label image'], 'annotations')
if seen != {
    'crop': ([65, 55, 20, 10], [5, 5, 20, 10], [20, 30]),
    'discs': (113, 125, 0.9),
    'crowds': (20, -1.0),
    'neighbours': (10, 0),
    'label image': 0,
}:
    sys.exit(f'changed: masks in COCO are those that were read: {seen}')
PYTHON
