"""Crops have the shape that the config means: RandomCrop takes (width, height), all else (height,
width).
"""

from pathlib import Path

import numpy as np
import pytest
from mmdet.datasets.transforms import RandomCrop
from mmengine.config import Config

BASES = Path(__file__).parents[2] / 'configs/_base_/datasets'


@pytest.mark.parametrize(
    'name, height, width',
    [
        ('toy_cityscapes', 112, 224),
        ('cityscapes', 512, 1024),
        ('ade20k', 630, 630),
        ('dsb2018', 256, 256),
        ('custom', 256, 256),
    ],
)
def test_a_larger_image_is_cropped_to_the_size_that_is_meant(name, height, width):
    config = Config.fromfile(BASES / f'{name}.py')
    crop = next(dict(step) for step in config.train_pipeline if step.type == 'RandomCrop')
    crop.pop('type')
    image = np.zeros((2 * height, 2 * width, 3), np.uint8)
    cropped = RandomCrop(**crop)(dict(img=image, img_shape=image.shape[:2]))
    assert cropped['img'].shape[:2] == (height, width)
