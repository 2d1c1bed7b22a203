"""The labels of a pseudo-label file one image after the other, which takes a fraction of the memory
of the file's content.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import BinaryIO

import numpy as np

from mmcast.memory import no_cycle_search
from mmcast.pseudo_labels.checks import IncrementalCheck
from mmcast.pseudo_labels.store import KEY_OF_FORMAT, SCORES, read_pseudo_labels

_BLOCK = 4 * 2**20  # bytes
_AT_ONCE = 2000  # annotations that are parsed and checked together
_LIST = b'"annotations": ['
_END = b']}\n'
_IMAGE = re.compile(rb'\{"id": [^,]+, "image_id": ([^,]+), ')  # what a line begins with
_image_of = itemgetter('image_id')


class NotAsWritten(Exception):
    """A file that :class:`LinesByImage` cannot read."""


class WholeFile:
    """Labels of a file of any layout.

    Args:
        path: of the file.

    Attributes:
        content: of the file, without ``annotations``.

    Raises:
        CASTError: see :func:`~mmcast.pseudo_labels.store.read_pseudo_labels`.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.content = read_pseudo_labels(path)
        self._of: dict = {image['id']: [] for image in self.content['images']}
        for annotation in self.content.pop('annotations'):
            self._of[annotation['image_id']].append(annotation)

    def __iter__(self) -> Iterator[tuple[int | str, list[dict]]]:
        """Each image that has labels, and these."""
        return ((image_id, labels) for image_id, labels in self._of.items() if labels)

    def of(self, image_id: int | str) -> list[dict]:
        """The labels of an image."""
        return self._of.get(image_id, [])


@dataclass
class Block:
    """A part of a file, with all labels of its images.

    Attributes:
        images: each image that has labels, and these.
        places: by image id, where its lines begin in the file, and how many they are.
        ids: (N,) of the annotations.
    """

    images: list[tuple[int | str, list[dict]]] = field(default_factory=list)
    places: dict[int | str, tuple[int, int]] = field(default_factory=dict)
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


class LinesByImage:
    """The same of a file that is valid and as mmcast writes it: a line for each annotation, those
    of an image together.

    Args:
        path: of the file.

    Raises:
        NotAsWritten: it is not, now or while it is gone through.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._path = path
        self._places: dict[int | str, tuple[int, int]] = {}
        try:
            with open(path, 'rb') as file:
                head = _read_head(file)
                self._start = file.tell()
            self.content = json.loads(head + b'}')
        except (OSError, ValueError, RecursionError) as error:
            raise NotAsWritten from error
        info = self.content.get('info')
        if not isinstance(info, dict) or not KEY_OF_FORMAT.items() <= info.items():
            raise NotAsWritten
        self._check = IncrementalCheck(self.content, SCORES)
        if not self._check.valid:
            raise NotAsWritten
        names = [category['name'] for category in self.content['categories']]
        if len(set(names)) < len(names):
            raise NotAsWritten

    def __iter__(self) -> Iterator[tuple[int | str, list[dict]]]:
        """Each image that has labels, and these.

        Raises:
            NotAsWritten: as above.
        """
        blocks = []
        for place in self.blocks():
            block = self.read(place)
            yield from block.images
            block.images = []
            blocks.append(block)
        self.note(blocks)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Where parts begin and end in the file, so that no image is in two of them."""
        with open(self._path, 'rb') as file:
            start, size = self._start, file.seek(0, os.SEEK_END)
            while start < size:
                file.seek(min(start + _BLOCK, size))
                file.readline()  # the rest of one
                image = _image_of_line(file.readline())
                end = file.tell()
                while end < size and _image_of_line(line := file.readline()) == image:
                    end += len(line)
                yield start, end
                start = end

    def read(self, place: tuple[int, int]) -> Block:
        """A part of the file.

        Raises:
            NotAsWritten: as above.
        """
        start, end = place
        with open(self._path, 'rb') as file:
            file.seek(start)
            lines = file.read(end - start).splitlines(keepends=True)
            if not lines or lines[-1].endswith(_END) == bool(file.read(1)):
                raise NotAsWritten
        block, labels = Block(), self._parse(lines)
        try:
            block.ids = np.array([label['id'] for label in labels], np.int64)
        except (ValueError, OverflowError, TypeError) as error:  # text, or of many digits
            raise NotAsWritten from error
        place_of_line = 0
        for image_id, group in groupby(labels, _image_of):
            found = list(group)
            if image_id in block.places:
                raise NotAsWritten
            block.places[image_id] = start, len(found)
            block.images.append((image_id, found))
            own = lines[place_of_line : place_of_line + len(found)]
            start, place_of_line = start + sum(map(len, own)), place_of_line + len(found)
        return block

    def _parse(self, lines: list[bytes]) -> list[dict]:
        labels: list[dict] = []
        for first in range(0, len(lines), _AT_ONCE):
            part = _parse(lines[first : first + _AT_ONCE])
            if not self._check.takes(part):
                raise NotAsWritten
            labels += part
        return labels

    def note(self, blocks: list[Block]) -> None:
        """Where the labels of each image are, once all parts have been read.

        Raises:
            NotAsWritten: an image is in two of them, or an id.
        """
        ids = np.concatenate([block.ids for block in blocks]) if blocks else np.zeros(0)
        self._places = {own: place for block in blocks for own, place in block.places.items()}
        once = len(np.unique(ids)) == len(ids)
        if not blocks or not once or len(self._places) < sum(len(b.places) for b in blocks):
            raise NotAsWritten

    def of(self, image_id: int | str) -> list[dict]:
        """The labels of an image, once all have been gone through."""
        if image_id not in self._places:
            return []
        start, number = self._places[image_id]
        with open(self._path, 'rb') as file:
            file.seek(start)
            return _parse([line for _, line in zip(range(number), file)])


def _read_head(file: BinaryIO) -> bytes:
    """What stands before the annotations, without the comma."""
    head = []
    for line in file:
        if line.rstrip() == _LIST:
            return b''.join(head).rstrip().removesuffix(b',')
        head.append(line)
    raise NotAsWritten


def _image_of_line(line: bytes) -> bytes | None:
    found = _IMAGE.match(line)
    return found[1] if found else None


@no_cycle_search()
def _parse(lines: list[bytes]) -> list[dict]:
    text = b''.join(lines).removesuffix(_END).rstrip().removesuffix(b',')
    try:
        part = json.loads(b'[' + text + b']')
    except (ValueError, RecursionError) as error:
        raise NotAsWritten from error
    if len(part) != len(lines):
        raise NotAsWritten
    return part
