"""A run that was interrupted ends with the numbers of one that was not."""

import random

import numpy as np
import pytest
import torch
from devices import ON_GPU
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from toy_run import ToyDataset, ToyModel

from mmcast.training.randomness import seed_all
from mmcast.training.runner import train_run


@DATASETS.register_module()
class AugmentedDataset(ToyDataset):
    """Every item is moved at random, by each generator that a transform may use."""

    def prepare_data(self, index):
        item = super().prepare_data(index)
        moved = np.random.rand() + random.random() + torch.rand(()).item()
        return dict(item, inputs=item['inputs'] + moved)


@MODELS.register_module()
class NoisyModel(ToyModel):
    """Draws numbers of its own in every step, as points and negatives are drawn."""

    def forward(self, inputs, mode='tensor', **kwargs):
        noise = torch.rand(()) + np.random.rand()
        return super().forward([each + noise for each in inputs], mode, **kwargs)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


SAMPLERS = {
    'one source': dict(
        dataset=dict(type='AugmentedDataset'), sampler=dict(type='InfiniteSampler', shuffle=True)
    ),
    'epochs': dict(
        dataset=dict(type='AugmentedDataset'), sampler=dict(type='DefaultSampler', shuffle=True)
    ),
    'two sources': dict(
        dataset=dict(type='ConcatDataset', datasets=[dict(type='AugmentedDataset')] * 2),
        sampler=dict(
            type='ResumableMultiSourceSampler', batch_size=4, source_ratio=[1, 1], shuffle=True
        ),
    ),
}


def train(folder, iterations, kind, workers, resume_from=None):
    """In epochs of two iterations, where the kind is that."""
    loader = dict(SAMPLERS[kind], batch_size=4, num_workers=workers)
    by_epoch = kind == 'epochs'
    loop = (
        dict(type='EpochBasedTrainLoop', max_epochs=iterations // 2)
        if by_epoch
        else dict(type='IterBasedTrainLoop', max_iters=iterations)
    )
    cfg = Config(
        dict(
            default_scope='mmcast',
            work_dir=str(folder),
            model=dict(type='NoisyModel'),
            train_dataloader=dict(loader, persistent_workers=workers > 0 and not by_epoch),
            train_cfg=loop,
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
            randomness=dict(seed=3),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=100, by_epoch=by_epoch)
            ),
            log_level='ERROR',
        )
    )
    return train_run(cfg, resume_from).checkpoint


def state(checkpoint):
    return torch.load(checkpoint, weights_only=False)['state_dict']


@pytest.mark.parametrize('device', ['any', ON_GPU])  # MMEngine takes the GPU where there is one
@pytest.mark.parametrize('kind', SAMPLERS)
def test_a_resumed_run_is_the_undisturbed_one_bit_by_bit(kind, device, tmp_path):
    """With any number of processes that load."""
    expected = state(train(tmp_path / 'whole', 8, kind, workers=0))
    half = train(tmp_path / 'half', 4, kind, workers=2)
    resumed = state(train(tmp_path / 'half', 8, kind, workers=1, resume_from=half))
    assert resumed.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(resumed[key], value), key
    assert not torch.equal(state(half)['layer.weight'], expected['layer.weight'])


def test_seeds_differ_by_each_number_and_its_place():
    drawn = []
    for numbers in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 2**40)):
        seed_all(*numbers)
        drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))
    for values in zip(*drawn):
        assert len(set(values)) == len(drawn)
