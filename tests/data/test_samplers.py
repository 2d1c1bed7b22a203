"""Batches of labeled and pseudo-labeled images, begun in the middle."""

from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from mmcast.data.samplers import (
    ResumableGroupMultiSourceSampler,
    ResumableMultiSourceSampler,
    shares_of_batches,
)

KINDS = [ResumableMultiSourceSampler, ResumableGroupMultiSourceSampler]
kinds = pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.__name__)


class Images(Dataset):
    """Without pixels: every third one is portrait; any process writes down what is loaded."""

    def __init__(self, number, log, name):
        self.number, self.log, self.name = number, log, name

    def __len__(self):
        return self.number

    def get_data_info(self, index):
        source = dict(source='unlabeled') if self.name == 'unlabeled ' else {}
        return dict(source, width=10, height=20 if index % 3 == 0 else 5)

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


@kinds
@pytest.mark.parametrize(
    'ratio, batch, shares',
    [
        ([1, 1], 4, (1, 1)),
        ([1, 1], 8, (1, 1)),
        ([1, 1], 3, (1, 1)),
        ([1, 1], 2, (0.5, 0.5)),
        ([1, 1], 1, (0.5, 0.5)),
        ([1, 3], 1, (0.25, 0.75)),
        ([1, 3], 2, (0.5, 1)),
    ],
)
def test_how_many_batches_have_images_of_either_kind(mixed, kind, ratio, batch, shares):
    np.random.seed(3)
    loader = DataLoader(mixed, batch, sampler=kind(mixed, batch_size=4, source_ratio=ratio, seed=0))
    assert shares_of_batches(loader) == shares
    labeled = np.array(list(islice(loader.sampler, 12 * batch))).reshape(-1, batch) < 7
    assert (labeled.any(1).mean(), (~labeled).any(1).mean()) == shares
    assert shares_of_batches(DataLoader(mixed, batch)) == (1, 1)


def test_data_sets_within_others_and_unknown_ones_have_batches_too(mixed):
    class Wrapped(Dataset):
        def __init__(self, dataset):
            self.dataset = dataset

        def __len__(self):
            return len(self.dataset)

    for unknown in ([1.0] * 7, mixed.datasets[0]):
        two = ConcatDataset([unknown, Wrapped(mixed.datasets[1])])
        loader = DataLoader(two, 1, sampler=sampler(ResumableMultiSourceSampler, two))
        assert shares_of_batches(loader) == (0.5, 0.5)


def test_of_labeled_images_alone_all_batches_have_some(mixed):
    two = ConcatDataset([mixed.datasets[0]] * 2)
    loader = DataLoader(two, 1, sampler=sampler(ResumableMultiSourceSampler, two))
    assert shares_of_batches(loader) == (1, 1)
