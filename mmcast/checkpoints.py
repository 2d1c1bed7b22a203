"""Checkpoints without code: tensors, plain data, and the log history of MMEngine."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer


def _history_method(owner: type, name: str) -> Callable:
    """Takes getattr's place while unpickling: MMEngine's log history refers to its own methods
    only.
    """
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError(f'it refers to {name} of {owner}')
    return getattr(HistoryBuffer, name)


# What MMEngine pickles next to the weights (the message hub). The first two functions are numpy's
# unpicklers; the module that they live in is called differently in numpy 1 and 2.
_RECONSTRUCT, _SCALAR = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
_MMENGINE_GLOBALS = [
    HistoryBuffer,
    np.ndarray,
    np.dtype,
    (_history_method, 'builtins.getattr'),
    *(type(np.dtype(name)) for name in ('float32', 'float64', 'int32', 'int64', 'bool')),
    *((_RECONSTRUCT, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
    *((_SCALAR, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
]


def load_plain(path: str | Path, map_location: Any = 'cpu') -> Any:
    """What ``torch.save`` wrote, as long as it is tensors, plain data, and MMEngine's log history.

    Raises:
        pickle.UnpicklingError: it holds anything else.
    """
    with torch.serialization.safe_globals(_MMENGINE_GLOBALS):
        return torch.load(path, map_location=map_location, weights_only=True)
