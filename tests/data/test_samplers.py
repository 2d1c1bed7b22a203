"""Batches of labeled and pseudo-labeled images, begun in the middle."""

from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import ConcatDataset, Dataset

from mmcast.data.samplers import ResumableGroupMultiSourceSampler, ResumableMultiSourceSampler

KINDS = [ResumableMultiSourceSampler, ResumableGroupMultiSourceSampler]
kinds = pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.__name__)


class Images(Dataset):
    """Without pixels: every third one is portrait; any process writes down what is loaded."""

    def __init__(self, number, log, name):
        self.number, self.log, self.name = number, log, name

    def __len__(self):
        return self.number

    def get_data_info(self, index):
        return dict(width=10, height=20 if index % 3 == 0 else 5)

    def __getitem__(self, index):
        with open(self.log, 'a') as file:
            file.write(f'{self.name}{index}\n')
        return torch.tensor(float(index))


class Learner(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, inputs, mode='loss'):
        return dict(loss=(self.weight - inputs).square().mean())


@pytest.fixture
def mixed(tmp_path):
    log = tmp_path / 'loaded.txt'
    return ConcatDataset([Images(7, log, 'labeled '), Images(20, log, 'unlabeled ')])


def sampler(kind, dataset):
    np.random.seed(3)  # chooses the orientation of a batch
    return kind(dataset, batch_size=4, source_ratio=[1, 1], seed=0)


@kinds
@pytest.mark.parametrize('skipped', [0, 4, 400, 6])
def test_after_a_skip_come_the_images_that_would_have_come(mixed, kind, skipped):
    whole = list(islice(sampler(kind, mixed), skipped + 40))
    resumed = sampler(kind, mixed)
    resumed.skip(skipped)
    assert list(islice(resumed, 40)) == whole[skipped:]
    assert len(set(whole)) == 27 or skipped < 400  # a long one sees them all


@kinds
def test_every_rank_goes_on_with_its_own_images(mixed, kind, monkeypatch):
    for rank in range(2):
        monkeypatch.setattr(
            'mmdet.datasets.samplers.multi_source_sampler.get_dist_info', lambda r=rank: (r, 2)
        )
        whole = list(islice(sampler(kind, mixed), 60))
        resumed = sampler(kind, mixed)
        resumed.skip(20)
        assert list(islice(resumed, 40)) == whole[20:]


def train(kind, mixed, folder, iterations, resume=False):
    runner = Runner(
        Learner(),
        str(folder),
        default_scope='mmcast',
        experiment_name=f'{folder.name}_{iterations}',
        resume=resume,
        randomness=dict(seed=3),
        train_dataloader=dict(
            batch_size=4,
            num_workers=1,
            dataset=mixed,
            collate_fn=lambda batch: dict(inputs=torch.stack(batch)),
            sampler=dict(type=kind.__name__, batch_size=4, source_ratio=[1, 1], seed=0),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=50, by_epoch=False), logger=None
        ),
    )
    runner.train()
    assert runner.iter == iterations


@kinds
def test_a_resumed_run_loads_nothing_that_it_has_trained_on(kind, mixed, tmp_path):
    """MMEngine's own loop with a worker, which with mmdet's sampler loads the first fifty batches
    again.
    """
    log = tmp_path / 'loaded.txt'
    train(kind, mixed, tmp_path / 'run', 50)
    log.unlink()
    train(kind, mixed, tmp_path / 'run', 51, resume=True)
    loaded = log.read_text().splitlines()
    expected = list(islice(sampler(kind, mixed), 200, 204))
    assert loaded[:4] == [
        f'labeled {index}' if index < 7 else f'unlabeled {index - 7}' for index in expected
    ]
    assert len(loaded) <= 4 * 4  # the batch, and what the worker prefetched
