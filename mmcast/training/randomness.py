"""Random numbers that depend on the seed, the process and the iteration alone.

A resumed run thereby draws what an undisturbed one would have drawn, in its data and in its model,
with any number of loader processes. MMEngine's runs begin the sequence of their seed again, and
its loader processes do so in every epoch that starts them anew.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import Dataset, get_worker_info

from mmcast.data.samplers import sampler_of

_MODEL, _DATA = range(2)


class SeedIterationsHook(Hook):
    """Seeds all generators before each iteration, and before each batch is loaded.

    Batches are numbered as the iterations that they are for, but where processes outlive an epoch
    whose batches they cannot share evenly; there they are numbered differently.
    """

    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._workers: _SeededWorkers | None = None

    def before_train(self, runner: Runner) -> None:
        """Before the loop asks for the first batch."""
        loader = runner.train_dataloader
        seed = (runner.seed, get_rank(), _DATA)
        if not loader.num_workers:
            _seed_batches(loader.dataset, seed, runner.iter, 1)
            return
        # MMEngine has the workers load what a resumed run skips, where the sampler cannot.
        loads_skipped = isinstance(runner.train_loop, IterBasedTrainLoop) and not hasattr(
            sampler_of(loader), 'skip'
        )
        first = 0 if loads_skipped else runner.iter
        self._workers = _SeededWorkers(loader.worker_init_fn, seed, first)
        loader.worker_init_fn = self._workers

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Before the model's step."""
        seed_all(runner.seed, get_rank(), _MODEL, runner.iter)
        if self._workers is not None:
            self._workers.first = runner.iter + 1


class _SeededWorkers:
    """A loader's ``worker_init_fn``.

    Args:
        init: the one that it had.
        seed: of all batches.
        first: number of the batch that new workers load first.
    """

    def __init__(
        self, init: Callable[[int], None] | None, seed: tuple[int, ...], first: int
    ) -> None:
        self.init, self.seed, self.first = init, seed, first

    def __call__(self, worker: int) -> None:
        if self.init is not None:
            self.init(worker)
        info = get_worker_info()
        # torch gives the batches to the workers in turn.
        _seed_batches(info.dataset, self.seed, self.first + worker, info.num_workers)


def seed_all(*numbers: int) -> None:
    """Seeds Python's, numpy's and torch's generators by natural numbers of any size, which count in
    their order.
    """
    state = np.random.SeedSequence(numbers).generate_state(4)
    random.seed(int(state[0]))
    np.random.seed(state[1])
    torch.manual_seed(int(state[2]) << 32 | int(state[3]))


def _seed_batches(dataset: Dataset, seed: tuple[int, ...], first: int, step: int) -> None:
    """Makes a data set seed every batch that is loaded from it in this process.

    Args:
        dataset: torch asks its ``__getitems__`` for the items of a batch.
        seed: of all batches.
        first: number of the first batch.
        step: between the numbers of two batches.
    """
    load = getattr(dataset, '__getitems__', None) or (lambda indices: [dataset[i] for i in indices])
    number = first

    def seeded(indices: list[int]) -> list:
        nonlocal number
        seed_all(*seed, number)
        number += step
        return load(indices)

    dataset.__getitems__ = seeded
