"""ONNX files of students: whether they are as they were written, and what they say of themselves.

onnxruntime takes flipped bits of weights as they come. So :func:`seal` writes the SHA-256 of all
else into a property of the file, and :func:`check_onnx_file` compares before onnxruntime reads it.
Neither needs a package.
"""

import hashlib
import json
import mmap
import os
from pathlib import Path
from typing import Any

from mmcast.errors import CASTError
from mmcast.files import check_is_binary
from mmcast.masks.tiling import Windows

KIND = 'mmcast student'
OUTPUTS = ('boxes', 'masks', 'scores', 'labels', 'image_indices')
CHECKSUM = 'content_sha256'
UNSEALED = '0' * 64
# What stands before the digits, as protocol buffers write a property whose value is a JSON string.
_BEFORE = CHECKSUM.encode() + b'\x12\x42"'
_AGAIN = 'export it again with mmcast onnx'


def seal(path: str | os.PathLike) -> None:
    """Puts the checksum of a file in the place of :data:`UNSEALED`, its property's value so far.

    Raises:
        ValueError: the file has no such property.
    """
    with open(path, 'r+b') as file, mmap.mmap(file.fileno(), 0) as data:
        place = data.rfind(_BEFORE + UNSEALED.encode())
        if place < 0:
            raise ValueError(f'{path} has no property {CHECKSUM} to be filled in')
        place += len(_BEFORE)
        data[place : place + len(UNSEALED)] = _digest(data, place).encode()


def check_onnx_file(path: str | os.PathLike) -> None:
    """Refuses what is not a student of ``mmcast onnx``, or not as it was written.

    Files of mmcast 0.1 have no checksum.

    Raises:
        CASTError: the file is missing, something else, or damaged.
    """
    if not Path(path).exists():
        raise CASTError(f'ONNX file {path} not found; make one with mmcast onnx')
    check_is_binary(path, 'an ONNX file')
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(KIND.encode()) < 0:
            raise CASTError(f'{path} is not a student of mmcast onnx; export one with it')
        place = data.rfind(_BEFORE) + len(_BEFORE)
        if place < len(_BEFORE):
            return
        if data[place : place + len(UNSEALED)] != _digest(data, place).encode():
            raise CASTError(
                f'{path} is not as mmcast onnx wrote it: it is damaged, or another tool changed '
                f'it; {_AGAIN}, or remove its property {CHECKSUM} if the change is yours'
            )


def read_metadata(session: Any, path: str | os.PathLike) -> dict[str, Any]:
    """What a student's file says about itself, out of its properties.

    Args:
        session: of onnxruntime.
        path: of the file, for messages.

    Raises:
        CASTError: it does not say it, or has other inputs or outputs than a student.
    """
    properties = session.get_modelmeta().custom_metadata_map
    if properties.get('kind') != KIND:
        raise CASTError(f'{path} is not a student of mmcast onnx; export one with it')
    try:
        # onnxruntime's quantiser adds a property of its own.
        metadata = {
            key: json.loads(value)
            for key, value in properties.items()
            if key != 'kind' and not key.startswith('onnx.')
        }
        metadata['classes'] = [str(name) for name in metadata['classes']]
        metadata['score_threshold'] = float(metadata['score_threshold'])
        _check_graph(session, metadata)
    except (ValueError, TypeError, KeyError) as error:
        raise CASTError(
            f'{path} does not say what it is ({type(error).__name__}: {error}): it is damaged; '
            f'{_AGAIN}'
        ) from error
    return metadata


def _check_graph(session: Any, metadata: dict[str, Any]) -> None:
    """Raises ValueError, TypeError or KeyError unless a graph and its settings can be run."""
    outputs = {each.name for each in session.get_outputs()}
    (images,) = session.get_inputs()  # the threshold has a default
    if not outputs.issuperset(OUTPUTS) or images.name != 'images' or len(images.shape) != 4:
        raise ValueError(f'its inputs and outputs are {images.name}, {", ".join(sorted(outputs))}')
    resize, windows = metadata['resize'], metadata.get('windows')
    if resize is not None and not all(int(side) > 0 for side in (resize[0], resize[1])):
        raise ValueError(f'resize is {resize}')
    if windows:
        Windows(**windows)
        if metadata['pad_size_divisor'] < 1 or len(metadata['mean'] or 'rgb') != 3:
            raise ValueError('pad_size_divisor or mean is not that of an image')


def _digest(data: mmap.mmap, place: int) -> str:
    """SHA-256 of all but the digits at ``place``."""
    digest = hashlib.sha256()
    with memoryview(data) as view, view[:place] as before, view[place + len(UNSEALED) :] as after:
        digest.update(before)
        digest.update(after)
    return digest.hexdigest()
