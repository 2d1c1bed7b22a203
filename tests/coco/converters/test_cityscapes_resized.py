import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from mmcast.coco.converters.cityscapes_resized import resize_cityscapes
from mmcast.errors import CASTError
from mmcast.toy.cityscapes import generate_toy_cityscapes

REPOSITORY = Path(__file__).parents[3]
OLD, NEW = (40, 80), (15, 30)  # height and width: eight old pixels cover three new ones


@pytest.fixture
def root(tmp_path):
    generate_toy_cityscapes(tmp_path / 'data', num_train=3, num_val=2, size=OLD, progress=False)
    return tmp_path / 'data'


def pixels(path):
    return np.array(Image.open(path))


def covered(old, new):
    """(new, old) how much of each old pixel lies in each new one."""
    ratio, shares = old / new, np.zeros((new, old))
    for i in range(new):
        for j in range(old):
            shares[i, j] = max(0, min((i + 1) * ratio, j + 1) - max(i * ratio, j)) / ratio
    return shares


def slow_mean(image):
    rows, columns = (covered(old, new) for old, new in zip(OLD, NEW))
    return np.einsum('ih,hwc,jw->ijc', rows, image, columns)


def slow_nearest(ids):
    found = np.zeros(NEW, ids.dtype)
    for y in range(NEW[0]):
        for x in range(NEW[1]):
            centre = (y + 0.5) * OLD[0] / NEW[0], (x + 0.5) * OLD[1] / NEW[1]
            found[y, x] = ids[int(centre[0]), int(centre[1])]
    return found


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def command(root, *options):
    environment = dict(os.environ, PYTHONPATH=str(REPOSITORY))
    return subprocess.run(
        [sys.executable, '-m', 'mmcast', 'convert', 'cityscapes', str(root), *options],
        capture_output=True,
        text=True,
        env=environment,
    )


def test_a_smaller_data_set_beside_the_old_one(root, tmp_path):
    before = files(root)
    done = command(root, '--height', '15', '--num-workers', '2')
    assert done.returncode == 0, done.stderr
    new = tmp_path / 'data_15'
    assert files(root) == before
    assert '3 images' in done.stdout and str(new / 'annotations/instances_train.json')
    images = sorted(root.glob('leftImg8bit/*/*/*.png'))
    maps = sorted(root.glob('gtFine/*/*/*_instanceIds.png'))
    assert len(images) == len(maps) == 5
    for path in images:
        resized = pixels(new / path.relative_to(root))
        assert np.abs(resized - slow_mean(pixels(path))).max() <= 0.5 + 1e-3
    for path in maps:
        resized = pixels(new / path.relative_to(root))
        np.testing.assert_array_equal(resized, slow_nearest(pixels(path)))
    assert len(files(new)) == 5 + 5 + 2

    coco = json.loads((new / 'annotations/instances_val.json').read_text())
    for image in coco['images']:
        name = image['file_name'].replace('_leftImg8bit', '_gtFine_instanceIds')
        ids = pixels(new / 'gtFine/val' / name)
        for ann in coco['annotations']:
            if ann['image_id'] == image['id']:
                mask = mask_api.decode(ann['segmentation'])
                np.testing.assert_array_equal(mask, ids == ann['instance_id'])


def test_an_interrupted_call_is_completed_and_a_complete_one_is_kept(root, tmp_path, monkeypatch):
    def resize(**options):
        resize_cityscapes(root, 'train', tmp_path / 'new', 15, progress=False, **options)

    whole = tmp_path / 'whole'
    resize_cityscapes(root, 'train', whole, 15, progress=False)
    written, write = [], 'mmcast.coco.converters.cityscapes_resized.write_atomically'

    def killed(path, data):
        if len(written) == 4:  # three images and a map
            raise KeyboardInterrupt
        written.append(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(write, killed)
        with pytest.raises(KeyboardInterrupt):
            resize()
    assert not (tmp_path / 'new/gtFine/train').exists(), 'half a split has no name to be found by'
    resize()
    assert files(tmp_path / 'new') == files(whole)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / 'new').rglob('*')}
    resize()
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / 'new').rglob('*')}


def test_other_images_are_refused_or_moved_aside(root, tmp_path):
    new = tmp_path / 'new'
    resize_cityscapes(root, 'val', new, 15, progress=False)
    before = files(new)
    with pytest.raises(CASTError, match=r'leftImg8bit/val exists and is not .* height of 20'):
        resize_cityscapes(root, 'val', new, 20, progress=False)
    assert files(new) == before
    resize_cityscapes(root, 'val', new, 20, force=True, progress=False)
    assert {path.stat().st_size for path in new.glob('gtFine/val.old1/*/*.png')}
    sizes = {Image.open(path).size for path in new.glob('*/val/*/*.png')}
    assert sizes == {(40, 20)}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--height', '41'), 'is 40 pixels high: give a --height up to that'),
        (('--height', '0'), '--height is 0: give a number of pixels from 1'),
    ],
    ids=str,
)
def test_impossible_heights_are_one_line(root, tmp_path, options, message):
    with pytest.raises(CASTError, match=message):
        resize_cityscapes(root, 'train', tmp_path / 'new', int(options[1]), progress=False)
    assert not (tmp_path / 'new/leftImg8bit/train').exists()


def test_the_data_set_itself_is_no_place_for_the_new_one(root):
    with pytest.raises(CASTError, match='choose another --out-root'):
        resize_cityscapes(root, 'train', f'{root}/', 15, progress=False)
