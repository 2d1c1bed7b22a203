"""Batches of labeled and pseudo-labeled images."""
from collections.abc import Iterator
from itertools import islice

from mmdet.datasets.samplers import GroupMultiSourceSampler

from mmcast.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class ResumableGroupMultiSourceSampler(GroupMultiSourceSampler):
    """mmdet's sampler, which a resumed run need not load again what it has trained on.

    MMEngine winds a data loader forward to where the checkpoint was. Without ``skip`` it does so by loading every
    image up to there; with it, only their indices are drawn.
    """

    _skipped = 0

    def skip(self, num_samples: int) -> None:
        """The next iteration begins after ``num_samples`` indices of this process, counted from the start.

        As ``mmengine.dataset.InfiniteSampler.skip``: to be called once, before iterating. The orientation of
        each batch comes from numpy's global generator; seeded as the first time, it is the same one.
        """
        self._skipped = num_samples

    def __iter__(self) -> Iterator[int]:
        return islice(super().__iter__(), self._skipped, None)
