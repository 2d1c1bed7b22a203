"""Append-only shards: what the processes of a run write, one file each, and what a later run finds
of them.

A line is a record: CRC-32 (8 hexadecimal digits) of the rest, the image's index in the list, JSON.
The first record of a shard, of index -1, is the header. A line without its end or of another
checksum counts as not written: a record is there whole or not at all, and its image is labeled
again.
"""

import contextlib
import json
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmcast.errors import CASTError
from mmcast.locks import lock_file

_HEADER = -1
_IN_USE = '{path} is being written by another run; wait until it ends, or give another output file'
_SYNC_SECONDS = (
    5  # a power failure takes no more work than this; a kill takes none that was written
)


def in_use(path: Path) -> str:
    """The message where another process writes a file or folder."""
    return _IN_USE.replace('{path}', str(path))


def check_same_info(path: Path, found: dict, wanted: dict) -> None:
    """Raises CASTError, naming the fields, where a file was made from other things than are asked
    for now.
    """
    different = [key for key in sorted(wanted | found) if wanted.get(key) != found.get(key)]
    if different:
        more = ''
        if 'images' in different:
            more = ' (were some added, taken away or renamed?)'
            different = [key for key in different if key != 'image_sizes']  # says nothing then
        elif 'image_sizes' in different:
            more = ' (is it another folder with the same names, or were images repaired?)'
        raise CASTError(
            f'{path} was made with another {", ".join(different)}{more}; delete it or give another '
            'output file'
        )


class ShardWriter:
    """Appends records to a shard, which is this process's until it is closed.

    Args:
        path: the shard, new or an earlier run's.
        info: the header.

    Raises:
        CASTError: another process writes it, or the disk does not take a record.
    """

    def __init__(self, path: Path, info: dict) -> None:
        self.path = path
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(
                path.open('ab', buffering=0)
            )  # what was written survives a kill
            stack.enter_context(lock_file(self._file, in_use(path)))
            self._open = stack.pop_all()
        self._synced = time.monotonic()
        if not self._file.tell():
            self.write(_HEADER, dict(info=info))

    def __enter__(self) -> 'ShardWriter':
        return self

    def __exit__(self, *error: object) -> None:
        os.fsync(self._file.fileno())
        self._open.close()

    def write(self, place: int, record: dict) -> None:
        """Appends the record of the image at an index of the list."""
        content = f'{place} {json.dumps(record)}'.encode()
        line = b'%08x %s\n' % (zlib.crc32(content), content)
        end = self._file.tell()
        try:
            while line:
                line = line[self._file.write(line) :]
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(
                    end
                )  # not needed, but tidy: a reader would pass over the half line
            raise CASTError(
                f'cannot write to {self.path} ({error.strerror}); what is done is kept: make '
                'room and give the same command again'
            ) from error


class ShardIndex:
    """Where in the shards of a folder the record of each image is.

    Building it makes the shards ready to be appended to: a last line that was cut short is removed.

    Args:
        folder: with ``shard_*.jsonl`` files.
        num_images: length of the list of images.
        info: the header that every shard must have.

    Attributes:
        damaged: number of whole lines that were passed over, as their checksum was not theirs.

    Raises:
        CASTError: a shard has another header, or a process still writes it.
    """

    def __init__(self, folder: Path, num_images: int, info: dict) -> None:
        self.paths = sorted(folder.glob('shard_*.jsonl'))
        self.damaged = 0
        self._shard = np.full(num_images, -1, np.int32)
        self._start = np.zeros(num_images, np.int64)
        self._labelled = np.zeros(num_images, bool)
        for number, path in enumerate(self.paths):
            self._scan(number, path, info)

    def _scan(self, number: int, path: Path, info: dict) -> None:
        start, header = 0, False
        with path.open('r+b') as file, lock_file(file, in_use(path)):
            for line in file:
                place, content = _parse(line)
                if not line.endswith(b'\n'):
                    break
                if place == _HEADER:
                    check_same_info(path.parent, json.loads(content)['info'], info)
                    header = True
                elif place is None or not header or not place < len(self._shard):
                    self.damaged += 1
                elif not self._labelled[place]:
                    self._shard[place], self._start[place] = number, start
                    self._labelled[place] = not content.startswith(b'{"unreadable"')
                start += len(line)
            if start and not header:
                raise CASTError(
                    f'the header of {path} is damaged, so nobody knows which teacher made it; '
                    'delete the file and give the same command again'
                )
            file.truncate(start)

    def unlabelled(self) -> np.ndarray:
        """Indices of the images that have no labels yet; those that could not be read are tried
        again.
        """
        return np.flatnonzero(~self._labelled)

    def missing(self) -> np.ndarray:
        """Indices of the images without any record."""
        return np.flatnonzero(self._shard < 0)

    def __iter__(self) -> Iterator[dict]:
        """All records in the order of the list of images, one at a time."""
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(path.open('rb')) for path in self.paths]
            for number, start in zip(self._shard.tolist(), self._start.tolist()):
                files[number].seek(start)
                yield json.loads(_parse(files[number].readline())[1])


def _parse(line: bytes) -> tuple[int | None, bytes]:
    """Index and JSON of a line; no index if it is damaged."""
    checksum, _, content = line.rstrip(b'\n').partition(b' ')
    if checksum != b'%08x' % zlib.crc32(content):
        return None, b''
    place, _, record = content.partition(b' ')
    return int(place), record
