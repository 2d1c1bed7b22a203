"""Reads COCO files of any size: the annotations stay text until a process takes some of them to
check.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from json.decoder import WHITESPACE
from pathlib import Path

from mmcast.coco.checks.findings import Finding

_CHUNK = 1000  # annotations that a process takes at once


@dataclass
class AnnotationFile:
    """A COCO file.

    Args:
        path: of the file.
        text: its content.
        images, categories: the elements of these lists, None if there is no such list.
        chunks: where in the text (start, end) some ``annotations`` are, None if there is no such
            list.
    """

    path: str
    text: str
    images: list | None = None
    categories: list | None = None
    chunks: list[tuple[int, int]] | None = None

    def annotations(self, chunk: tuple[int, int]) -> str:
        """The annotations of a chunk as a JSON list."""
        return f'[{self.text[slice(*chunk)]}]'


def read_annotation_file(
    path: str | os.PathLike, needed: tuple[str, ...]
) -> AnnotationFile | Finding:
    """Reads a file of valid JSON in which the needed lists (images, annotations, categories) are.

    As Python objects the annotations of COCO need several times the memory of the file; so each is
    parsed, which finds invalid JSON, and dropped.

    Raises:
        OSError: the file cannot be read.
    """
    path = os.fspath(path)
    try:
        text = Path(path).read_text(encoding='utf-8')
        if text.lstrip()[:1] not in ('', '{'):
            return Finding('not-coco', path, path, 'the file holds no JSON object')
        found = _Scanner(path, text).scan()
    except UnicodeDecodeError as error:
        return Finding(
            'invalid-json', path, path, f'no UTF-8 text: {error.reason} at byte {error.start}'
        )
    except (ValueError, RecursionError) as error:
        return Finding('invalid-json', path, path, str(error))
    lists = dict(images=found.images, annotations=found.chunks, categories=found.categories)
    missing = [name for name in needed if lists[name] is None]
    if missing:
        return Finding('not-coco', path, path, f'the file has no list {", ".join(missing)}')
    if not found.images:
        return Finding('not-coco', path, path, 'the file lists no image')
    return found


@dataclass
class _Scanner:
    """Walks through the top level of a JSON object."""

    path: str
    text: str
    at: int = 0
    decode: json.JSONDecoder = field(default_factory=json.JSONDecoder)

    def scan(self) -> AnnotationFile:
        file = AnnotationFile(self.path, self.text)
        self._take('{')
        for _ in self._items('}'):
            key = self._value()
            self._take(':')
            if self._peek() != '[' or key not in ('images', 'categories', 'annotations'):
                self._value()
            elif key == 'annotations':
                file.chunks = self._chunks()
            else:
                setattr(file, key, self._value())
        if self._peek():
            raise json.JSONDecodeError('Extra data', self.text, self.at)
        return file

    def _chunks(self) -> list[tuple[int, int]]:
        starts, ends = [], []
        self._take('[')
        for number, _ in enumerate(self._items(']')):
            if number % _CHUNK == 0:
                starts.append(self.at)
                ends.append(self.at)
            self._value()
            ends[-1] = self.at
        return list(zip(starts, ends))

    def _items(self, closing: str) -> Iterator[None]:
        """Stands before every item of the list or object just opened, and behind its end
        afterwards.
        """
        if self._peek() == closing:
            self._take(closing)
            return
        while True:
            self._peek()
            yield
            if self._take(f',{closing}') == closing:
                return

    def _peek(self) -> str:
        """The next character that is no white space, '' at the end of the text."""
        self.at = WHITESPACE.match(self.text, self.at).end()
        return self.text[self.at : self.at + 1]

    def _take(self, allowed: str) -> str:
        symbol = self._peek()
        if not symbol or symbol not in allowed:
            raise json.JSONDecodeError(f'Expecting {" or ".join(allowed)}', self.text, self.at)
        self.at += 1
        return symbol

    def _value(self):
        value, self.at = self.decode.raw_decode(self.text, self.at)
        return value
