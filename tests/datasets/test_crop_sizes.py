"""Crops have the shape that the config means: RandomCrop takes (width, height), all else (height, width)."""
from pathlib import Path

import numpy as np
import pytest
from mmdet.datasets.transforms import RandomCrop
from mmengine.config import Config

BASES = Path(__file__).parents[2] / 'configs/_base_/datasets'


@pytest.mark.parametrize('name', ['toy_cityscapes', 'dsb2018'])
def test_a_larger_image_is_cropped_to_the_image_size(name):
    config = Config.fromfile(BASES / f'{name}.py')
    crop = next(dict(step) for step in config.train_pipeline if step.type == 'RandomCrop')
    crop.pop('type')
    image = np.zeros((2 * config.image_size[0], 2 * config.image_size[1], 3), np.uint8)
    cropped = RandomCrop(**crop)(dict(img=image, img_shape=image.shape[:2]))
    assert cropped['img'].shape[:2] == tuple(config.image_size)
