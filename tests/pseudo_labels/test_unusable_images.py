"""An image that cannot be labeled is recorded with the reason; the others get their labels."""

import gc
import json
import os
import sys

import cv2
import numpy as np
import pytest
import torch
from colour_teacher import HEIGHT, WIDTH, ColourTeacher, generate, make_config, make_data

from mmcast.errors import CASTError


@pytest.fixture
def data(tmp_path):
    gc.freeze()  # as in test_generate.py
    return make_data(tmp_path)


def add_image(data, image, name='sub/thin.png'):
    """One more image, listed with its size."""
    cv2.imwrite(str(data / 'images' / name), image)
    content = json.loads((data / 'images.json').read_text())
    size = dict(zip(('height', 'width'), image.shape))
    content['images'].insert(1, dict(id=99, file_name=name, **size))
    (data / 'images.json').write_text(json.dumps(content))


def unusable(data):
    found = json.loads((data / 'labels.json').read_text())['unreadable']
    return {entry['file_name']: entry['reason'] for entry in found}


@pytest.mark.parametrize('workers', [0, 1])
def test_a_picture_too_thin_for_a_transform(data, workers):
    """3000x2 pixels, fitted into 20 x 12, have no height left."""
    add_image(data, np.zeros((2, 3000, 3), np.uint8))
    config = make_config()
    resize = dict(type='Resize', scale=(WIDTH, HEIGHT), keep_ratio=True)
    config.test_dataloader.dataset.pipeline.insert(1, resize)
    summary = generate(data, config=config, num_workers=workers)
    assert (summary['images'], summary['unreadable_images'], summary['instances']) == (5, 1, 8)
    (name,) = unusable(data)
    assert name == 'sub/thin.png' and '\n' not in unusable(data)[name]


def fail_on(monkeypatch, width, error):
    """The teacher fails on images of one width."""
    forward = ColourTeacher.forward

    def picky(self, inputs, data_samples, mode='predict'):
        if inputs.shape[-1] == width:
            raise error
        return forward(self, inputs, data_samples, mode)

    monkeypatch.setattr(ColourTeacher, 'forward', picky)


def test_a_shape_on_which_the_teacher_fails(data, monkeypatch):
    add_image(data, np.zeros((2, 30, 3), np.uint8))
    fail_on(monkeypatch, 30, RuntimeError('Output size\nis too small'))
    assert generate(data)['instances'] == 8
    assert unusable(data) == {
        'sub/thin.png': 'the teacher fails on it: RuntimeError: Output size is too small'
    }
    with pytest.raises(CASTError, match=r'thin\.png .*cannot be used .the teacher fails on it'):
        generate(data, 'strict.json', strict=True)


@pytest.mark.parametrize(
    'error',
    [
        torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB'),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
        CASTError('not finite'),
    ],
)
def test_lack_of_memory_is_not_the_images_fault(data, monkeypatch, error):
    add_image(data, np.zeros((2, 30, 3), np.uint8))
    with monkeypatch.context() as patch:
        fail_on(patch, 30, error)
        with pytest.raises(type(error)):
            generate(data)
    assert generate(data)['unreadable_images'] == 0


def test_if_no_image_can_be_used_nothing_is_written(data, monkeypatch):
    with monkeypatch.context() as patch:
        fail_on(patch, WIDTH, ValueError('wrong config'))
        with pytest.raises(
            CASTError, match=r'none of the 5 images in .* can be used, .*ValueError: wrong config'
        ):
            generate(data)
    assert not (data / 'labels.json').exists()
    assert generate(data)['instances'] == 8


def test_more_than_8_bits_are_labeled_with_a_range(data):
    deep = np.zeros((HEIGHT, WIDTH, 3), np.uint16)
    deep[2:6, 3:10, 0], deep[2:6, 3:10, 1] = 900, 300  # blue
    add_image(data, deep, 'sub/deep.png')
    assert generate(data)['unreadable_images'] == 1
    assert 'uint16 values from 0 to 900' in unusable(data)['sub/deep.png']
    config = make_config()
    config.test_dataloader.dataset.pipeline[0].value_range = (0, 1000)
    assert generate(data, 'deep.json', config=config)['unreadable_images'] == 0
    content = json.loads((data / 'deep.json').read_text())
    (found,) = [each for each in content['annotations'] if each['image_id'] == 99]
    assert (found['category_id'], found['area']) == (3, 28)


@pytest.mark.skipif(sys.platform != 'linux', reason='other systems do not write such names')
def test_a_folder_is_labeled_but_for_names_that_cannot_be_used(data, capsys):
    folder = data / 'images/sub'
    os.rename(folder / '000.png', os.path.join(os.fsencode(folder), b'caf\xe9.png'))
    os.rename(folder / '001.png', folder / '._001.png')
    assert generate(data, ann_file=None)['images'] == 3
    said = capsys.readouterr().err
    assert r"caf\udce9.png' is not Unicode: left out; rename them" in said
    assert '1 hidden files and copies of programs left out' in said
