"""Images whose embeddings are kept have to come again."""

import random

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from torch.utils.data import ConcatDataset, Dataset

from mmcast.errors import CASTError
from mmcast.training.repeated_images import check_images_repeat


class Images(Dataset):
    """Ten images, each in a few versions."""

    def __init__(self, versions, folder='labeled'):
        self.versions, self.folder = versions, folder

    def __len__(self):
        return 10

    def __getitem__(self, index):
        np.random.rand(), torch.rand(())
        sample = DetDataSample(metainfo=dict(img_path=f'{self.folder}/{index}.png'))
        version = random.randrange(self.versions)
        return dict(inputs=torch.full((3, 4, 4), version), data_samples=sample)


@pytest.mark.parametrize('versions', [1, 2, 4])
def test_flipped_images_come_again_and_no_generator_has_moved(versions):
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    check_images_repeat(Images(versions))
    assert states == (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )


def test_images_that_are_new_each_time_are_named_in_every_part():
    with pytest.raises(CASTError, match=r'pseudo/0.png is another one .* of 8\).*cache_gb=0'):
        check_images_repeat(ConcatDataset([Images(2), Images(10**6, 'pseudo')]))
