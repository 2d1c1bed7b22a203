#!/usr/bin/env bash
# onedl-mmdetection 3.4.5 (mmdet 3.3.0 alike) with pycocotools 2.0.11: in `CocoMetric`, mAP counts the 100 best
# predictions of a class in an image, whatever `proposal_nums` says, while mAP_50, mAP_75, those by size, and classwise
# figures count as many as its largest number, 1,000 by default. An image with 300 cells, predicted without a fault, has
# mAP 0.337, and mAP_50, mAP_75, mAP_s and the AP of its only class are 1.0: no mean over IoUs can be that far from the
# figures at 0.5 and 0.75, and the mean over classes is not the mean of the classes. COCOeval's summary looks the 100 up
# for its first figure alone; with `maxDets` [1, 10, 300], which has no 100, that figure is -1. So a head with 300
# queries, trained and tested on dense images, looks worse than it is, as does every step that goes by mAP, such as the
# best checkpoint.
# Below, squares in a row, each predicted as it is. Installs torch (several GB). Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 \
    onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmdetection==3.4.5 faster-coco-eval==1.8.0 pycocotools==2.0.11 \
    cityscapesscripts==2.3.0 numpy==2.2.6 opencv-python-headless==4.12.0.88
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import contextlib
import io
import json
import sys
import types


class Operators(types.ModuleType):
    """Stands for mmcv's compiled operators, none of which is called here."""

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


sys.modules['mmcv._ext'] = Operators('mmcv._ext')
import numpy as np
from mmdet.evaluation import CocoMetric
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIDE, APART = 8, 10
PATH = f'{sys.argv[1]}/truth.json'


def squares(number):
    masks = np.zeros((number, SIDE, APART * number), np.uint8)
    for i, mask in enumerate(masks):
        mask[:, APART * i : APART * i + SIDE] = 1
    return [mask_utils.encode(np.asfortranarray(mask)) for mask in masks]


def write(number):
    """Ground truth of one image."""
    size = dict(height=SIDE, width=APART * number)
    annotations = [
        dict(id=i, image_id=1, category_id=1, bbox=mask_utils.toBbox(rle).tolist(), area=SIDE**2, iscrowd=0,
             segmentation=dict(rle, counts=rle['counts'].decode()))
        for i, rle in enumerate(squares(number), 1)]
    content = dict(images=[dict(size, id=1, file_name='a.png')], categories=[dict(id=1, name='cell')],
                   annotations=annotations)
    with open(PATH, 'w') as file:
        json.dump(content, file)
    return size, annotations


def mmdets(number, **options):
    size, annotations = write(number)
    boxes = np.array([annotation['bbox'] for annotation in annotations])
    boxes[:, 2:] += boxes[:, :2]
    found = dict(img_id=1, bboxes=boxes, scores=np.linspace(0.9, 0.5, number), labels=np.zeros(number, int),
                 masks=squares(number), mask_scores=np.linspace(0.9, 0.5, number))
    with contextlib.redirect_stdout(io.StringIO()):
        metric = CocoMetric(ann_file=PATH, metric='segm', classwise=True, **options)
        metric.dataset_meta = dict(classes=('cell',))
        figures = metric.compute_metrics([(dict(size, img_id=1), found)])
    return [float(figures[name]) for name in ('segm_mAP', 'segm_mAP_50', 'segm_mAP_75', 'segm_mAP_s', 'cell_precision')]


def pycocotools(number, most):
    _, annotations = write(number)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(PATH)
        run = COCOeval(truth, truth.loadRes([dict(a, score=0.9 - a['id'] / 1e4) for a in annotations]), 'segm')
        run.params.maxDets = most
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [round(float(figure), 3) for figure in run.stats[:3]]


print('mAP, mAP_50, mAP_75, mAP_s and AP of the class, of predictions that are the ground truth:')
seen = []
for number, options in ((100, {}), (300, {}), (300, dict(proposal_nums=(100, 200, 300)))):
    seen.append(mmdets(number, **options))
    print(f'  {number} objects, proposal_nums {options.get("proposal_nums", "by default")}:', seen[-1])
print('AP, AP50, AP75 by pycocotools alone, 300 objects:')
for most in ([1, 10, 100], [1, 100, 300], [1, 10, 300]):
    seen.append(pycocotools(300, most))
    print(f'  maxDets {most}:', seen[-1])
expected = [[1.0] * 5, [0.337, 1.0, 1.0, 1.0, 1.0], [0.337, 1.0, 1.0, 1.0, 1.0],
            [0.337] * 3, [0.337, 1.0, 1.0], [-1.0, 1.0, 1.0]]
if seen != expected:
    sys.exit('changed: AP counts other numbers of predictions')
PYTHON
