"""COCO files of made-up data, and what the plan step says of them."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mmcast.pipeline.custom_plan import plan_sizes
from mmcast.pipeline.data_plan import plan_from_data

CLASSES = ['cell', 'nucleus']
NETWORKS = ['custom/custom_teacher_adapt_labeled.py', 'custom/custom_student_transfer.py']


def write_labels(path, sizes, boxes, classes=CLASSES):
    """A COCO file of images of ``sizes``, height and width, and for each a list of ``boxes``: class
    index, x, y, width and height; masks are the boxes.
    """
    images = [
        dict(id=i, file_name=f'{i}.png', height=height, width=width)
        for i, (height, width) in enumerate(sizes, 1)
    ]
    annotations = [
        dict(
            image_id=i,
            category_id=label + 1,
            iscrowd=0,
            bbox=[x, y, width, height],
            area=width * height,
            segmentation=[[x, y, x + width, y, x + width, y + height, x, y + height]],
        )
        for i, of_image in enumerate(boxes, 1)
        for label, x, y, width, height in of_image
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation['id'] = number
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    Path(path).write_text(json.dumps(content))
    return str(path)


def write_files(folder, sizes, boxes, unlabeled=100):
    """The files of a data set whose validation images are its first labeled one, by name."""
    folder = Path(folder)
    return dict(
        labeled=write_labels(folder / 'labeled.json', sizes, boxes),
        val=write_labels(folder / 'val.json', sizes[:1], boxes[:1]),
        unlabeled=write_labels(folder / 'unlabeled.json', [sizes[0]] * unlabeled, []),
    )


def plan_of(folder, sizes, boxes, unlabeled=100, **options):
    """What the plan of a foundation teacher says of a data set."""
    files = write_files(folder, sizes, boxes, unlabeled)
    options = dict(dict(teacher='grounded_sam', student='cast_student', gpu=24), **options)
    return plan_from_data(out_dir=Path(folder) / 'plan', classes=CLASSES, **files, **options)


def any_plan(**options):
    """Outputs of the step for whatever data, of both kinds of pipeline."""
    data = [(480, 640)] * 3, [[(0, 5, 5, 60, 50)]] * 3
    with TemporaryDirectory() as folder:
        files = write_files(folder, *data)
        sizes = plan_sizes(Path(folder, 'sizes'), classes=CLASSES, configs=NETWORKS, **files)
        return sizes | plan_of(folder, *data, **options)


def squares(number, side, size, label=0):
    """So many boxes on a grid in an image of a size."""
    rng = np.random.default_rng(number)
    places = rng.integers(0, np.array(size) - side, (number, 2))
    return [(label, int(x), int(y), side, side) for y, x in places]


def why(plan):
    return {row['setting']: row for row in plan['decisions']}
