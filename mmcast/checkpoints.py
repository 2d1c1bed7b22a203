"""Weights files, read in one place: no code in them is run, and what is damaged is refused.

Whatever loads weights comes through here, :mod:`mmcast.compat` sees to MMEngine.
"""

import argparse
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from safetensors.torch import load_file
from torch import Tensor

from mmcast.errors import CASTError
from mmcast.files import check_is_binary

_AGAIN = 'delete it, and download or make it again'
_CHUNK = 1 << 20
# torch.save compresses nothing. Who has packed a checkpoint again may; a bomb is far beyond it.
_MOST_COMPRESSED = 50


# MMEngine stores some of its classes' own functions: in the log history and in one schedule.
_METHODS = {
    HistoryBuffer: ('min', 'max', 'current', 'mean'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


def _known_method(owner: type, name: str) -> Callable:
    """Takes getattr's place while unpickling."""
    if name not in _METHODS.get(owner, ()):
        raise pickle.UnpicklingError(f'GLOBAL getattr({owner}, {name})')
    return getattr(owner, name)


# What MMEngine pickles next to the weights (message hub, schedules), and the arguments of Meta's
# training scripts. The first two functions are numpy's unpicklers; the module that they live in is
# called differently in numpy 1 and 2.
_RECONSTRUCT, _SCALAR = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
_NUMBERS = ('bool', 'float16', 'float32', 'float64')
_INTEGERS = tuple(f'{sign}int{bits}' for sign in ('', 'u') for bits in (8, 16, 32, 64))
_KNOWN_GLOBALS = [
    *_METHODS,
    argparse.Namespace,
    slice,
    np.ndarray,
    np.dtype,
    (_known_method, 'builtins.getattr'),
    *(type(np.dtype(name)) for name in _NUMBERS + _INTEGERS),
    *((_RECONSTRUCT, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
    *((_SCALAR, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
]


def load_plain(path: str | Path, map_location: Any = 'cpu') -> Any:
    """The content of a weights file, as long as it is tensors, plain data, and MMEngine's log
    history.

    What is checked besides: the CRC-32 of every record of ``torch.save``'s zip format, which
    ``torch.load`` does not (zlib's needs 0.4 of the time of loading); and that the weights, though
    not an optimizer's state, are finite (0.06 of it).

    Args:
        path: of ``torch.save`` or safetensors, whatever the name's ending.
        map_location: as of ``torch.load``.

    Raises:
        CASTError: it is no such file, is damaged, holds other objects, or weights that are not
            finite.
    """
    check_is_binary(path, 'a weights file')
    return _load(str(path), str(path), map_location)


def load_stream(file: BinaryIO, map_location: Any = 'cpu') -> Any:
    """:func:`load_plain` of an open file."""
    return _load(file, str(getattr(file, 'name', 'a downloaded weights file')), map_location)


def load_url(url: str, map_location: Any = 'cpu') -> Any:
    """:func:`load_plain` of a file on the internet, which is downloaded once."""
    return load_plain(download(url), map_location)


def download(url: str) -> Path:
    """The local copy of a weights file on the internet, in torch's and MMEngine's own cache.

    Raises:
        CASTError: it is not there and cannot be downloaded.
    """
    path = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path))
        except (OSError, ValueError, HTTPException) as error:
            raise CASTError(
                f'{url} cannot be downloaded to {path} ({error}): check the address and the free '
                'space, or download it by hand and give its path'
            ) from error
    return path


def weights_in(content: Any) -> Any:
    """The state dict in what a weights file holds: MMEngine wraps it as ``state_dict``, Meta as
    ``model``.
    """
    if not isinstance(content, Mapping):
        return None
    return content.get('state_dict', content.get('model', content))


def _load(source: str | BinaryIO, name: str, map_location: Any) -> Any:
    with open(source, 'rb') if isinstance(source, str) else nullcontext(source) as file:
        head = file.read(9)
        file.seek(0)
        is_zip = head.startswith(b'PK\x03\x04')
        is_safetensors = head[8:] == b'{' and int.from_bytes(head[:8], 'little') < 1 << 40
        if is_zip:
            _check_zip(file, name)
            file.seek(0)
    if is_safetensors:
        content = _parse(lambda: load_file(name, _device_of(map_location)), name)
    else:
        content = _parse(lambda: _load_torch(source, map_location), name)
    _check_finite(weights_in(content), name)
    return content


def _load_torch(source: str | BinaryIO, map_location: Any) -> Any:
    with torch.serialization.safe_globals(_KNOWN_GLOBALS):
        return torch.load(source, map_location=map_location, weights_only=True)


def _device_of(map_location: Any) -> str:
    """The device of a ``map_location``; functions and mappings speak of devices that were saved."""
    return str(map_location) if isinstance(map_location, (str, torch.device)) else 'cpu'


def _parse(load: Callable[[], Any], name: str) -> Any:
    """What a library makes of a file; it has an error of any type for what it does not expect."""
    try:
        return load()
    except torch.cuda.OutOfMemoryError:  # a resumed run loads onto the GPU
        raise
    except Exception as error:
        foreign = re.search(r'GLOBAL ([\w.]+(\([^)]*\))?)', str(error))
        if foreign and isinstance(error, pickle.UnpicklingError):
            raise CASTError(
                f'{name} holds pickled code ({foreign[1]}), which is never run: give a file of '
                'tensors, or, if you trust who made it, convert it once as docs/deploy.md says '
                'under "What is safe to load"'
            ) from error
        # torch puts advice before the reason, which is to run the code in the file.
        _, _, reason = str(error).rpartition('WeightsUnpickler error: ')
        reason = (reason.strip() or type(error).__name__).splitlines()[0]
        raise CASTError(
            f'{name} cannot be read as a weights file ({reason}): it is cut short, damaged or '
            f'something else; {_AGAIN}'
        ) from error


def _check_zip(file: BinaryIO, name: str) -> None:
    """Raises CASTError unless a zip archive is one of ``torch.save`` and intact."""
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            _check_directory(records, name, file.seek(0, 2))
            # torch.serialization.set_crc32_options(False) leaves zeros.
            if any(record.CRC for record in records):
                for record in records:
                    with archive.open(record) as stream:
                        while stream.read(_CHUNK):
                            pass
    except CASTError:
        raise
    except Exception as error:
        raise CASTError(f'{name} is cut short or damaged ({error}): {_AGAIN}') from error


def _check_directory(records: list[zipfile.ZipInfo], name: str, size: int) -> None:
    names = {record.filename for record in records}
    short = {entry.partition('/')[2] for entry in names}
    if 'data.pkl' not in short:
        shown = ', '.join(sorted(names)[:3]) or 'nothing'
        raise CASTError(
            f'{name} is a zip archive, not a weights file (it holds {shown}): unpack it, and give '
            'the weights file in it'
        )
    if 'constants.pkl' in short:
        raise CASTError(
            f'{name} is a TorchScript program, which is never run: give the weights it was made of'
        )
    unpacked = sum(record.file_size for record in records)
    if len(names) < len(records) or unpacked > _MOST_COMPRESSED * size:
        raise CASTError(f'{name} is damaged (its zip directory contradicts itself): {_AGAIN}')


def describe_not_finite(state: Mapping[str, Any]) -> str:
    """How many tensors of a state dict hold NaN or infinity, and the first ones; '' where none
    does.
    """
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    broken = [str(key) for key, value in tensors.items() if not _is_finite(value)]
    if not broken:
        return ''
    return (
        f'{len(broken)} of {len(tensors)} tensors are not finite (NaN or infinity), such as '
        f'{", ".join(broken[:3])}'
    )


def _check_finite(state: Any, name: str) -> None:
    problem = describe_not_finite(state) if isinstance(state, Mapping) else ''
    if problem:
        raise CASTError(
            f'{name}: {problem}: the training that saved it diverged, or the file is damaged; give '
            'an earlier checkpoint, or download it again'
        )


def _is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite; of floating-point and complex tensors."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    plain = tensor.layout == torch.strided and not tensor.is_meta
    if not plain or not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.element_size() == 1:  # 8-bit floats have no arithmetic
        tensor = tensor.float()
    low, high = torch.aminmax(tensor.detach())  # NaN if any value is
    return bool(torch.isfinite(low) and torch.isfinite(high))
