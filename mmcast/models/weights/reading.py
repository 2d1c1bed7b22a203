"""Reading weights that somebody else made: no code in the file is run, and nothing is left out
silently.
"""

import io
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mmcast.adapter_files import load_whole
from mmcast.checkpoints import load_plain, weights_in
from mmcast.errors import CASTError
from mmcast.files import write_atomically


def read_state_dict(
    path: str | Path, source: str = '', with_base: bool = True
) -> dict[str, Tensor]:
    """The tensors of a weights file, on the CPU: of safetensors or ``torch.save``.

    Args:
        path: a local file. A checkpoint of MMEngine (its ``state_dict``) or of Meta (``model``) is
            unwrapped, and one of LoRA adapters gives all weights, with the adapters merged.
        source: where such a file is to be had, for the message when it is missing.
        with_base: of a checkpoint of adapters, all weights; else those in the file itself.

    Raises:
        CASTError: the file is missing or no weights file, is damaged, or holds more than tensors
            and plain data, or weights that are not finite; or the base weights of adapters are not
            found.
    """
    path = Path(path)
    if not path.exists():
        fix = (
            f'download {source} to this path'
            if source
            else 'give the path of an existing checkpoint'
        )
        raise CASTError(f'weights file {path} not found; {fix}')
    state = weights_in(load_whole(path) if with_base else load_plain(path))
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(value, Tensor) for value in state.values())
        or not all(isinstance(key, str) for key in state)
    ):
        raise CASTError(
            f'{path} holds no state dict of tensors; give a checkpoint with model weights'
        )
    return dict(state)


def is_hub_name(name: str) -> bool:
    """Whether what is not a file here may be a name on Hugging Face; ``weights/`` is meant to be
    local.
    """
    return bool(re.fullmatch(r'(?!weights/)\w[\w.-]*(/[\w.-]+)?', name))


def write_state_dict(path: str | Path, state: Mapping[str, Tensor]) -> None:
    """Writes tensors so that a reader finds all of them or no file."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomically(path, buffer.getvalue())


def describe_mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """How the names and shapes of two state dicts differ, in one line; empty where they agree."""
    shapes = [
        f'{key} is {tuple(found[key].shape)}, needs {tuple(expected[key].shape)}'
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    differences = {
        'missing': [key for key in expected if key not in found],
        'unexpected': [key for key in found if key not in expected],
        'wrong shape': shapes,
    }
    return '; '.join(f'{kind}: {_list_some(items)}' for kind, items in differences.items() if items)


def _list_some(items: list[str], shown: int = 4) -> str:
    rest = len(items) - shown
    return ', '.join(items[:shown]) + (f' and {rest} more' if rest > 0 else '')
