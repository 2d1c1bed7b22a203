"""Global generators of random numbers that are used without a trace."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def generators_kept() -> Iterator[None]:
    """Python's, numpy's and torch's generators are afterwards as they were before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@contextmanager
def numbers_of_their_own() -> Iterator[None]:
    """:func:`generators_kept`, with numbers within that follow from numpy's state but are none of
    those that come afterwards.
    """
    with generators_kept():
        seed = int(np.random.randint(2**32, dtype=np.uint64))
        random.seed(seed)
        np.random.seed(seed)
        torch.random.default_generator.manual_seed(seed)
        yield
