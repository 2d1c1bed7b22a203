"""A review task of the images of ``export_scene``: its objects are the pseudo-labels.

``python tests/helpers/review_scene.py FOLDER TOOL`` writes one for ``tests/exports/make.py``.
"""

import json
import sys
from pathlib import Path

import cv2
from export_scene import HEIGHT, NAMES, SCENE, WIDTH, box, picture
from pycocotools import mask as mask_api

from mmcast.masks.rle import encode_mask
from mmcast.pseudo_labels.store import make_info, write_store
from mmcast.review.export import export_review

SCORES = (0.9, 0.6, 0.4)
WEAK = box(20, 30, 28, 40)  # a label below the threshold, of b.png


def annotation(label, mask, **fields):
    return dict(
        category_id=NAMES.index(label) + 1,
        segmentation=encode_mask(mask),
        area=int(mask.sum()),
        bbox=mask_api.toBbox(encode_mask(mask)).tolist(),
        iscrowd=0,
        **fields,
    )


def write_scene(folder):
    """Images in ``photos/new``, their pseudo-labels in ``pseudo.json``; and a labeled image in
    ``photos/old``, in ``labeled.json``.
    """
    records = []
    for number, (name, objects) in enumerate(SCENE.items(), start=1):
        path = folder / 'photos/new' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(name)[..., ::-1])
        found = [
            annotation(label, mask, score=score) for (label, mask), score in zip(objects, SCORES)
        ]
        found += [annotation('cell', WEAK, score=0.2)] if name == 'b.png' else []
        image = dict(id=number, file_name=f'new/{name}', height=HEIGHT, width=WIDTH)
        records.append(dict(image=image, annotations=found))
    categories = [dict(id=number, name=name) for number, name in enumerate(NAMES, start=1)]
    write_store(folder / 'pseudo.json', make_info(score_floor=0.05), categories, records)
    old = folder / 'photos/old/d.png'
    old.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(old), picture('a.png')[::-1, :, ::-1])
    labeled = dict(
        images=[dict(id=7, file_name='old/d.png', height=HEIGHT, width=WIDTH)],
        # Other ids, another order, a class that no pseudo-label has.
        categories=[dict(id=2, name='cell'), dict(id=4, name='nucleus'), dict(id=9, name='debris')],
        annotations=[dict(annotation('cell', WEAK), id=5, image_id=7, category_id=2)],
    )
    (folder / 'labeled.json').write_text(json.dumps(labeled))
    return folder


def write_task(folder, tool, **options):
    """A task of all three images in ``folder/task``."""
    write_scene(folder)
    return export_review(
        folder / 'pseudo.json', folder / 'photos', folder / 'task', tool, number=3, **options
    )


if __name__ == '__main__':
    write_task(Path(sys.argv[1]), sys.argv[2])
