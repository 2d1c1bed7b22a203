"""Batches of labeled and pseudo-labeled images, and loops over infinite samplers."""

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np
from mmdet.datasets.samplers import GroupMultiSourceSampler, MultiSourceSampler
from mmengine.dataset import InfiniteSampler
from mmengine.runner import BaseLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader, Dataset

from mmcast.errors import CASTError
from mmcast.registry import DATA_SAMPLERS

_INFINITE = (InfiniteSampler, MultiSourceSampler)


class _Resumable:
    """Lets MMEngine wind a sampler forward to where a checkpoint was.

    Without ``skip`` MMEngine loads every image up to there; with it, only their indices are
    sampled.
    """

    _skipped = 0

    def skip(self, num_samples: int) -> None:
        """The next iteration begins after ``num_samples`` indices of this process, counted from the
        start.

        As ``mmengine.dataset.InfiniteSampler.skip``: to be called once, before iterating.
        """
        self._skipped = num_samples

    def __iter__(self) -> Iterator[int]:
        return islice(super().__iter__(), self._skipped, None)


@DATA_SAMPLERS.register_module()
class ResumableMultiSourceSampler(_Resumable, MultiSourceSampler):
    """mmdet's ``MultiSourceSampler``; a resumed run does not load again what it has trained on."""


@DATA_SAMPLERS.register_module()
class ResumableGroupMultiSourceSampler(_Resumable, GroupMultiSourceSampler):
    """mmdet's ``GroupMultiSourceSampler``, whose resumed run does not load again what it has
    trained on.

    mmdet draws the orientation of each batch from numpy's global generator. Here that has the state
    of the sampler's own while it draws, so that nothing else has a part in it.
    """

    def __iter__(self) -> Iterator[int]:
        return _with_own_generator(super().__iter__(), self.seed)


def _with_own_generator(indices: Iterator[int], seed: int) -> Iterator[int]:
    own = np.random.RandomState(seed).get_state()
    while True:
        others = np.random.get_state()
        np.random.set_state(own)
        try:
            index = next(indices)
        finally:
            own = np.random.get_state()
            np.random.set_state(others)
        yield index


def check_that_it_ends(loop: BaseLoop, name: str) -> BaseLoop:
    """Passes a loop on whose loader gives what the loop waits for.

    Args:
        loop: MMEngine's, built.
        name: 'train', 'val' or 'test', for the message.

    Raises:
        CASTError: the loop goes through all data, which an infinite sampler never ends, or a
            sampler waits for images of a source, or of an orientation in it, that there are none
            of.
    """
    sampler = sampler_of(loop.dataloader)
    if isinstance(sampler, MultiSourceSampler):
        _check_sources(sampler, f'{name}_dataloader')
    if isinstance(sampler, _INFINITE) and not isinstance(loop, IterBasedTrainLoop):
        kind, other = type(sampler).__name__, dict(type='DefaultSampler', shuffle=name == 'train')
        fix = f'{name}_dataloader.sampler={other}'
        if name == 'train':
            fix = f"train_cfg=dict(type='IterBasedTrainLoop', max_iters=...), or {fix}"
        raise CASTError(
            f'{type(loop).__name__} goes through all of {name}_dataloader, which never ends with '
            f'{kind}: set {fix}'
        )
    return loop


def sampler_of(loader: DataLoader) -> object:
    """What gives a loader's indices, perhaps in a sampler of batches."""
    return getattr(loader.batch_sampler, 'sampler', None) or loader.sampler


def shares_of_batches(loader: DataLoader) -> tuple[float, float]:
    """Fractions of a loader's batches that have images which people labeled, and that have others.

    Less than 1 where a sampler's batch, in which one source comes after the other, is several of
    the loader's; 1 of what the sampler does not have.
    """
    sampler, size = sampler_of(loader), loader.batch_size
    if not isinstance(sampler, MultiSourceSampler) or size is None:
        return 1.0, 1.0
    labeled = [
        _source_of(dataset) == 'labeled'
        for dataset, number in zip(sampler.dataset.datasets, sampler.num_per_source)
        for _ in range(number)
    ]
    labeled *= math.lcm(len(labeled), size) // len(labeled)
    batches = [set(labeled[i : i + size]) for i in range(0, len(labeled), size)]
    shares = [sum(kind in batch for batch in batches) / len(batches) for kind in (True, False)]
    return shares[0] or 1.0, shares[1] or 1.0


def _source_of(dataset: Dataset) -> str:
    """Who labeled the images of a data set, as its first one says."""
    while not hasattr(dataset, 'get_data_info') and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset  # mmdet's MultiImageMixDataset says nothing itself
    if not hasattr(dataset, 'get_data_info'):
        return 'labeled'
    return dataset.get_data_info(0).get('source', 'labeled')


def _check_sources(sampler: MultiSourceSampler, loader: str) -> None:
    """Raises CASTError where mmdet's sampler would wait for ever for a source."""
    for index, number in enumerate(sampler.num_per_source):
        where = f'{loader}.dataset.datasets[{index}]'
        if number < 1:
            raise CASTError(
                f'{loader}.sampler: of a batch of {sampler.batch_size} with '
                f'source_ratio={sampler.source_ratio} no image is of {where}: make batch_size '
                'larger or the ratio more even, or leave that data set out'
            )
        if not len(sampler.dataset.datasets[index]):
            raise CASTError(
                f'{where} has no image to train on, and {loader}.sampler takes {number} of it into '
                'each batch: check its annotation file and filter_cfg'
            )
    if isinstance(sampler, GroupMultiSourceSampler):
        _check_orientations(sampler, loader)


def _check_orientations(sampler: GroupMultiSourceSampler, loader: str) -> None:
    """Raises CASTError where mmdet's sampler draws an orientation that a source has no image of."""
    for index, sizes in enumerate(sampler.group2size_per_source):
        for group, kind in enumerate(('portrait', 'landscape or square')):
            if sampler.group_sizes[group] and not sizes[group]:
                raise CASTError(
                    f'{loader}.dataset.datasets[{index}] has no {kind} image, which another source '
                    f'has {sampler.group_sizes[group]} of; a batch of these would never be full: '
                    f'set {loader}.sampler.type to MultiSourceSampler'
                )
