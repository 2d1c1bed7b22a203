"""Reads COCO files of any size: the annotations stay text until a process takes some of them to
check.
"""

import codecs
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcast.coco.findings import Finding

_CHUNK = 1000  # annotations that a process takes at once
_MARK = '\ufeff'
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_WORD = re.compile(r'[^ \t\n\r]')  # what is not white space in JSON


@dataclass
class AnnotationFile:
    """A COCO file.

    Args:
        text: its content.
        images: the elements of the list ``images``.
        categories: those of the list ``categories``.
        chunks: where in the text (start, end) some ``annotations`` are.
        lists: which of these lists the file has.
        findings: what is odd and harmless.
    """

    text: str
    images: list = field(default_factory=list)
    categories: list = field(default_factory=list)
    chunks: list[tuple[int, int]] = field(default_factory=list)
    lists: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    def annotations(self, chunk: tuple[int, int]) -> str:
        """The annotations of a chunk as a JSON list."""
        return f'[{self.text[slice(*chunk)]}]'

    def each_annotation(self) -> Iterator[Any]:
        """One annotation after the other, parsed again."""
        for chunk in self.chunks:
            yield from json.loads(self.annotations(chunk))


def read_text(path: str | os.PathLike) -> tuple[str, list[Finding]]:
    """The text of a JSON file, in UTF-8, -16 or -32, and whether a byte order mark was skipped.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no text.
    """
    data = Path(path).read_bytes()
    text = data.decode(json.detect_encoding(data))
    marked = data.startswith(_MARKS) or text.startswith(_MARK)
    source = os.fspath(path)
    found = [Finding('byte-order-mark', source, source, 'at its beginning')] if marked else []
    return text.removeprefix(_MARK), found


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
        text, odd = read_text(path)
        if text.lstrip()[:1] not in ('', '{'):
            return Finding('not-coco', path, path, 'the file holds no JSON object')
        found = _Scanner(text).scan()
    except (ValueError, RecursionError) as error:
        return invalid_json(path, error)
    missing = [name for name in needed if name not in found.lists]
    if missing:
        return missing_lists(path, missing)
    if not found.images:
        return Finding('not-coco', path, path, 'the file lists no image')
    found.findings = odd
    return found


def invalid_json(path: str, error: Exception) -> Finding:
    """The finding for what a decoder of text or JSON said."""
    said = (
        f'no text in UTF-8: {error.reason} at byte {error.start}'
        if isinstance(error, UnicodeDecodeError)
        else str(error)
    )
    return Finding('invalid-json', path, path, said)


def missing_lists(path: str, names: list[str]) -> Finding:
    """The finding for a file without some of COCO's lists."""
    return Finding('not-coco', path, path, f'the file has no list {", ".join(names)}')


@dataclass
class _Scanner:
    """Walks through the top level of a JSON object."""

    text: str
    at: int = 0
    decode: json.JSONDecoder = field(default_factory=json.JSONDecoder)

    def scan(self) -> AnnotationFile:
        file = AnnotationFile(self.text)
        self._take('{')
        for _ in self._items('}'):
            key = self._value()
            self._take(':')
            if self._peek() != '[' or key not in ('images', 'categories', 'annotations'):
                self._value()
                continue
            file.lists.add(key)
            if key == 'annotations':
                file.chunks = self._chunks()
            else:
                setattr(file, key, self._value())
        if self._peek():
            raise json.JSONDecodeError('Extra data', self.text, self.at)
        return file

    def _chunks(self) -> list[tuple[int, int]]:
        starts: list[int] = []
        ends: list[int] = []
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
        """The next character that is not white space, '' at the end of the text."""
        found = _WORD.search(self.text, self.at)
        self.at = found.start() if found else len(self.text)
        return self.text[self.at : self.at + 1]

    def _take(self, allowed: str) -> str:
        symbol = self._peek()
        if not symbol or symbol not in allowed:
            raise json.JSONDecodeError(f'Expecting {" or ".join(allowed)}', self.text, self.at)
        self.at += 1
        return symbol

    def _value(self) -> Any:
        value, self.at = self.decode.raw_decode(self.text, self.at)
        return value
