"""Loading of an image in training: its size is the label file's, its values are 8 bits."""

import json

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image

from mmcast.data.loading import LoadImage, value_range_of
from mmcast.errors import CASTError
from mmcast.registry import DATASETS


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmcast')


def write_set(folder, kind='JPEG', orientation=6, size=(20, 30)):
    """Seven photos with an orientation; the labels of the last say `size`."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    images = []
    for number in range(7):
        Image.new('RGB', (30, 20)).save(folder / f'{number}.img', kind, exif=exif)
        images.append(dict(id=number, file_name=f'{number}.img', height=30, width=20))
    images[-1].update(height=size[0], width=size[1])
    annotation = dict(id=1, image_id=6, category_id=1, bbox=[1, 1, 5, 5], area=25, iscrowd=0)
    annotation['segmentation'] = [[1, 1, 6, 1, 6, 6, 1, 6]]
    content = dict(images=images, annotations=[annotation], categories=[dict(id=1, name='car')])
    (folder / 'labels.json').write_text(json.dumps(content))


def dataset(folder, **loading):
    masks = dict(type='LoadCompressedAnnotations', with_bbox=True, with_mask=True)
    return DATASETS.build(
        dict(
            type='CocoDataset',
            data_root=str(folder),
            ann_file='labels.json',
            data_prefix=dict(img=''),
            metainfo=dict(classes=('car',)),
            pipeline=[dict(type='LoadImage', **loading), masks, dict(type='PackDetInputs')],
        )
    )


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
def test_labels_of_the_unturned_photo_are_told_at_any_place(tmp_path, kind):
    """Only the last of seven differs: a look at the first few does not find it."""
    write_set(tmp_path, kind)
    samples = dataset(tmp_path)
    assert samples[5]['inputs'].shape == (3, 30, 20)
    with pytest.raises(CASTError, match=r'6\.img is 20x30, .* says 30x20: EXIF orientation 6'):
        samples[6]


def test_labels_of_a_resized_photo_are_told(tmp_path):
    write_set(tmp_path, size=(60, 40))
    with pytest.raises(CASTError, match=r'6\.img is 20x30, .* says 40x60: it was resized'):
        dataset(tmp_path)[6]


def test_a_size_that_nobody_knows_is_not_compared(tmp_path):
    Image.new('RGB', (30, 20)).save(tmp_path / 'a.png')
    for size in ({}, dict(height=0, width=0), dict(height=None, width=None)):
        result = LoadImage()(dict(size, img_path=str(tmp_path / 'a.png')))
        assert result['ori_shape'] == result['img_shape'] == (20, 30)


def test_more_than_8_bits_are_refused_without_a_range_and_seen_with_one(tmp_path):
    values = np.linspace(100, 2100, 600).reshape(20, 30).astype(np.uint16)
    cv2.imwrite(str(tmp_path / 'deep.png'), values)
    results = dict(img_path=str(tmp_path / 'deep.png'))
    with pytest.raises(CASTError, match=r'deep\.png has uint16 values from 100 to 2100: say which'):
        LoadImage()(dict(results))
    image = LoadImage(value_range=[100, 2100])(dict(results))['img']
    assert image.shape == (20, 30, 3) and image.dtype == np.uint8
    assert np.abs(image[..., 0] - (values - 100.0) / 2000 * 255).max() <= 0.5
    same = LoadImage('percentile', to_float32=True)(dict(results))['img']
    assert same.dtype == np.float32 and same.min() == 0 and same.max() == 255


@pytest.mark.parametrize('kind', ['LoadImage', 'mmcast.LoadImage'])
def test_the_range_of_a_config_is_that_of_its_test_pipeline(kind):
    steps = [dict(type=kind, value_range='0,4095'), dict(type='PackDetInputs')]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=steps))))
    assert value_range_of(cfg) == [0, 4095]
    cfg.test_dataloader.dataset.pipeline[0] = dict(type='LoadImageFromFile')
    assert value_range_of(cfg) is None


def test_a_wrong_range_is_told_when_the_pipeline_is_built():
    with pytest.raises(CASTError, match='value_range is .*4095, 0'):
        Compose([dict(type='LoadImage', value_range=[4095, 0])])
