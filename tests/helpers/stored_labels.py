"""Small pseudo-label files and held-out ground truth of rectangles, written by hand."""

import json

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from mmcast.masks.rle import encode_mask
from mmcast.pseudo_labels.store import make_info, write_store

HEIGHT, WIDTH = 20, 30
CATEGORIES = [dict(id=5, name='car'), dict(id=9, name='person')]
CAR, PERSON = 5, 9


def rectangle(top, left, height, width):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def label(category, mask, score=None, **fields):
    """A COCO annotation; a hidden one without a score."""
    rle = encode_mask(mask)
    fields = fields if score is None else dict(fields, score=score)
    return (
        dict(
            category_id=category,
            segmentation=rle,
            area=int(mask.sum()),
            iscrowd=0,
            bbox=mask_utils.toBbox(rle).tolist(),
        )
        | fields
    )


def write_labels(path, labels, unreadable=(), info=None):
    """A pseudo-label file; `labels` by image id."""
    records = [
        dict(
            image=dict(id=key, file_name=f'{key}.png', height=HEIGHT, width=WIDTH),
            annotations=found,
        )
        for key, found in labels.items()
    ]
    records += [
        dict(unreadable='cut short', image=dict(id=99, file_name=name)) for name in unreadable
    ]
    write_store(path, info or make_info(score_floor=0.05), CATEGORIES, records)
    return path


def write_hidden(path, labels, offset=100):
    """COCO labels of the same images with other ids, and categories in another order, one of them
    unknown.
    """
    categories = [dict(id=1, name='person'), dict(id=2, name='truck'), dict(id=3, name='car')]
    ids = {CAR: 3, PERSON: 1}
    images = [
        dict(id=key + offset, file_name=f'{key}.png', height=HEIGHT, width=WIDTH) for key in labels
    ]
    annotations = [
        dict(ann, image_id=key + offset, category_id=ids[ann['category_id']])
        for key, found in labels.items()
        for ann in found
    ]
    annotations = [dict(ann, id=number) for number, ann in enumerate(annotations, 1)]
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return path


def write_images(folder, ids):
    folder.mkdir(exist_ok=True)
    for key in ids:
        cv2.imwrite(str(folder / f'{key}.png'), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    return folder
