"""Batches of labeled and pseudo-labeled images."""

from collections.abc import Iterator
from itertools import islice

from mmdet.datasets.samplers import GroupMultiSourceSampler, MultiSourceSampler

from mmcast.registry import DATA_SAMPLERS


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

    The orientation of each batch comes from numpy's global generator; seeded as the first time, it
    is the same one.
    """
