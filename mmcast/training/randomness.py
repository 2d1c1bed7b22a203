"""Random numbers that depend on the seed, the process and the iteration alone.

A resumed run thereby draws what an undisturbed one would have drawn, in its data and in its model,
with any number of loader processes. MMEngine's runs begin the sequence of their seed again.
"""

import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import Dataset, get_worker_info

from mmcast.data.samplers import never_ends, sampler_of

_MODEL, _DATA = range(2)


class SeedIterationsHook(Hook):
    """Seeds all generators before each iteration, and before each batch is loaded.

    Batches are seeded where they are numbered: in an ``IterBasedTrainLoop`` with an infinite
    sampler.
    """

    priority = 'HIGHEST'

    def before_train(self, runner: Runner) -> None:
        """Before the loop asks for the first batch."""
        loader = runner.train_dataloader
        sampler = sampler_of(loader)
        if not isinstance(runner.train_loop, IterBasedTrainLoop) or not never_ends(sampler):
            return
        loads_skipped = loader.num_workers > 0 and not hasattr(sampler, 'skip')
        first = 0 if loads_skipped else runner.iter
        seed = (runner.seed, get_rank(), _DATA)
        if loader.num_workers:
            loader.worker_init_fn = functools.partial(
                _start_worker, loader.worker_init_fn, seed, first
            )
        else:
            _seed_batches(loader.dataset, seed, first, 1)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Before the model's step."""
        seed_all(runner.seed, get_rank(), _MODEL, runner.iter)


def seed_all(*numbers: int) -> None:
    """Seeds Python's, numpy's and torch's generators by natural numbers of any size, which count in
    their order.
    """
    state = np.random.SeedSequence(numbers).generate_state(4)
    random.seed(int(state[0]))
    np.random.seed(state[1])
    torch.manual_seed(int(state[2]) << 32 | int(state[3]))


def _start_worker(
    init: Callable[[int], None] | None, seed: tuple[int, ...], first: int, worker: int
) -> None:
    if init is not None:
        init(worker)
    info = get_worker_info()
    # torch gives the batches to the workers in turn.
    _seed_batches(info.dataset, seed, first + worker, info.num_workers)


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
