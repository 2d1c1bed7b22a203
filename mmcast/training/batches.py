"""Batch sizes of training, which a loader has and so does a sampler of several sources."""

import math
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmcast.errors import CASTError


def merge_run_options(config: Config, given: Mapping[str, Any]) -> None:
    """Merges options into the config of a run, in place; where they change the batch size of the
    loader alone, that of its sampler follows.

    Args:
        config: of a run.
        given: dicts in dicts, as :func:`~mmcast.training.overrides.nested` makes them.
    """
    config.merge_from_dict(dict(given))
    loader = given.get('train_dataloader')
    if not isinstance(loader, Mapping) or not isinstance(loader.get('batch_size'), int):
        return
    sampler = config.train_dataloader.get('sampler')
    if sampler and 'batch_size' in sampler and 'batch_size' not in loader.get('sampler', {}):
        share = sum(sampler.get('source_ratio', [1]))
        sampler.batch_size = sampler_batch_size(loader['batch_size'], share)


def sampler_batch_size(batch: int, share: int) -> int:
    """The batch size of a sampler whose sources' ratio adds up to ``share``: the loader's ``batch``
    where that holds the ratio, else so many of these that they do, in as many iterations.
    """
    return batch * (share if batch % share else 1)


def check_batch_sizes(config: Config) -> None:
    """Raises CASTError where a step of the optimizer would not hold whole batches of the sampler,
    so that some steps had images of one source alone.
    """
    loader = config.get('train_dataloader') or {}
    sampler = loader.get('sampler') or {}
    batch = loader.get('batch_size', 1)
    accumulated = (config.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    numbers = (batch, accumulated, sampler.get('batch_size'))
    if not all(isinstance(number, int) for number in numbers):  # none, or known when a step has run
        return
    if batch * accumulated % sampler['batch_size']:
        share = sum(sampler.get('source_ratio', [1]))
        counts = sampler['batch_size'] // math.gcd(batch, sampler['batch_size'])
        other = (
            f'a train_dataloader.batch_size that is a multiple of {share}'
            if batch % share
            else f'train_dataloader.sampler.batch_size={batch}'
        )
        raise CASTError(
            f'train_dataloader.batch_size is {batch}, that of its sampler {sampler["batch_size"]}: '
            f'steps would have images of one source alone; set {other}, or '
            f'optim_wrapper.accumulative_counts to a multiple of {counts}, so that a step has '
            'whole batches of the sampler'
        )


def divide_batch_size(loader: dict, processes: int) -> None:
    """Turns a training loader's batch size from that of all processes together into that of one, in
    place.

    A config with ``divide_batch_size = True`` then takes the same steps on any number of processes;
    without it, batch sizes are per process, as everywhere in OpenMMLab.

    Raises:
        CASTError: the processes cannot share the batch evenly, labeled and pseudo-labeled images
            alike.
    """
    share = processes * sum(loader.sampler.get('source_ratio', [1]))
    for part in (loader, loader.sampler):
        if 'batch_size' in part:
            if processes > 1 and part['batch_size'] % share:
                raise CASTError(
                    f'{processes} processes cannot share batches of {part["batch_size"]} evenly: '
                    'start another number of processes, or make train_dataloader.batch_size a '
                    f'multiple of {share}'
                )
            part['batch_size'] //= processes
