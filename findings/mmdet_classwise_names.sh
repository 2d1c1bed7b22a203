#!/usr/bin/env bash
# onedl-mmdetection 3.4.5 (mmdet 3.3.0 alike) with pycocotools 2.0.11: `CocoMetric(classwise=True)` gives the
# figures of one class under the name of another where the annotation file does not list its categories by ascending
# id. COCOeval sorts the category ids it is given, so its precision array is in the order of ids; CocoMetric takes
# names in the order of the file. Here the file lists dog (id 2), then cat (id 1), and the predictions find the dog
# and not the cat: reported are dog 0.0 and cat 1.0. The figures over all classes are right, so nothing draws
# attention to it. Installs torch (several GB). Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 \
    onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmdetection==3.4.5 faster-coco-eval==1.8.0 pycocotools==2.0.11 \
    cityscapesscripts==2.3.0 numpy==2.2.6 opencv-python-headless==4.12.0.88
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
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

boxes = dict(dog=[10, 10, 20, 20], cat=[40, 40, 30, 30])
ids = dict(dog=2, cat=1)
truth = dict(
    images=[dict(id=1, width=100, height=100, file_name='a.jpg')],
    categories=[dict(id=id_, name=name) for name, id_ in ids.items()],
    annotations=[
        dict(id=number, image_id=1, category_id=ids[name], bbox=box, area=box[2] * box[3], iscrowd=0)
        for number, (name, box) in enumerate(boxes.items(), 1)
    ],
)
path = f'{sys.argv[1]}/truth.json'
with open(path, 'w') as file:
    json.dump(truth, file)
x, y, w, h = boxes['dog']
found = dict(
    img_id=1, bboxes=np.array([[x, y, x + w, y + h]], float), scores=np.ones(1), labels=np.zeros(1, int)
)
with contextlib.redirect_stdout(io.StringIO()):
    metric = CocoMetric(ann_file=path, metric='bbox', classwise=True)
    metric.dataset_meta = dict(classes=('dog', 'cat'))
    figures = metric.compute_metrics([(dict(img_id=1, width=100, height=100), found)])
figures = {name: float(figures[f'{name}_precision']) for name in boxes}
print('the dog is found, the cat is not; CocoMetric says', figures)
if figures != dict(dog=0.0, cat=1.0):
    sys.exit('changed: figures have the names of their classes')
PYTHON
