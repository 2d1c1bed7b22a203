import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mmcast.errors import CASTError
from mmcast.toy.nuclei import SIZE, draw_nuclei, generate_toy_nuclei, random_look


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob('*') if path.is_file()}


def test_images_depend_on_seed_split_and_number_only(tmp_path):
    generate_toy_nuclei(tmp_path / 'one', num_train=3, num_val=2, progress=False)
    generate_toy_nuclei(tmp_path / 'two', num_train=1, num_val=2, num_workers=1, progress=False)
    one, two = files(tmp_path / 'one'), files(tmp_path / 'two')
    images = [path for path in two if path.suffix == '.png']
    assert len(images) == 3 and all(two[path] == one[path] for path in images)
    assert len({one[path] for path in one if path.suffix == '.png'}) == 5
    generate_toy_nuclei(tmp_path / 'other', num_train=1, num_val=0, seed=1, progress=False)
    first = next(path for path in images if 'train' in path.parts)
    assert (tmp_path / 'other' / first).read_bytes() != one[first]


def test_annotations_are_what_was_drawn(tmp_path):
    generate_toy_nuclei(tmp_path, num_train=4, num_val=0, progress=False)
    coco = COCO(tmp_path / 'annotations/instances_train.json')
    for index, image in enumerate(coco.loadImgs(coco.getImgIds())):
        pixels, ids = draw_nuclei(np.random.default_rng([0, 0, index]))
        assert np.array_equal(
            np.asarray(Image.open(tmp_path / 'images' / image['file_name'])), pixels
        )
        masks = [
            coco.annToMask(entry).astype(bool)
            for entry in coco.loadAnns(coco.getAnnIds(image['id']))
        ]
        assert masks and sum(masks).max() == 1, 'a pixel belongs to one nucleus at most'
        for mask in masks:
            assert (
                len(np.unique(ids[mask])) == 1
                and ids[mask][0] > 0
                and (ids == ids[mask][0]).sum() == mask.sum()
            )


def test_nuclei_differ_from_the_background_in_every_look():
    """On the drawn image, not only in the plan: what is labeled can be seen."""
    contrasts = []
    for index in range(30):
        image, ids = draw_nuclei(np.random.default_rng(index))
        assert image.shape == (SIZE, SIZE, 3)
        contrasts.append(np.abs(image[ids > 0].mean(0) - image[ids == 0].mean(0)).max())
    assert min(contrasts) > 3 and max(contrasts) > 60
    bright = [
        random_look(np.random.default_rng(index)).background.mean() > 100 for index in range(30)
    ]
    assert 0 < sum(bright) < 30


def test_other_annotations_are_not_overwritten(tmp_path):
    generate_toy_nuclei(tmp_path, num_train=1, num_val=0, progress=False)
    path = tmp_path / 'annotations/instances_train.json'
    path.write_text(json.dumps(dict(mine=True)))
    with pytest.raises(CASTError, match='exists with different content'):
        generate_toy_nuclei(tmp_path, num_train=1, num_val=0, progress=False)
    assert json.loads(path.read_text()) == dict(mine=True)
