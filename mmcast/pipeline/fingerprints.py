"""What the result of a step depends on, and how that differs from before."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# Files with these endings are inputs whose content matters; images are too many to read.
_INPUT_SUFFIXES = ('.json', '.pth', '.pt', '.safetensors', '.txt')


@dataclass
class Fingerprint:
    """What a step's result depends on: settings (flat key: text), input files (path: sha256)."""

    settings: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 (hex) of all of it."""
        return hashlib.sha256(
            json.dumps([self.settings, self.files], sort_keys=True).encode()
        ).hexdigest()

    def changes(self, new: 'Fingerprint') -> list[str]:
        """One readable phrase for each setting or file in which ``new`` differs."""
        changes = []
        for key in sorted(self.settings.keys() | new.settings.keys()):
            old_text, new_text = self.settings.get(key, 'absent'), new.settings.get(key, 'absent')
            if old_text != new_text:
                changes.append(f'{key}: {_shorten(old_text)} -> {_shorten(new_text)}')
        changes += [
            f'the content of {path}'
            for path in sorted(self.files.keys() & new.files.keys())
            if self.files[path] != new.files[path]
        ]
        changes += [
            f'input file {path} is gone' for path in sorted(self.files.keys() - new.files.keys())
        ]
        changes += [
            f'new input file {path}' for path in sorted(new.files.keys() - self.files.keys())
        ]
        return changes


def flatten(value: Any, prefix: str = '') -> dict[str, str]:
    """Nested dicts and lists as ``{'a.b.0': text}``, the empty ones included."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    flat = {}
    for key, item in items:
        flat.update(flatten(item, f'{prefix}.{key}' if prefix else str(key)))
    return flat if flat or not prefix else {prefix: repr(value)}


def strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from strings_in(item)
    elif isinstance(value, str):
        yield value


def input_files(value: Any, root: str = '') -> Iterator[str]:
    """Paths of existing label and weight files; a dataset's file names are relative to its
    ``data_root``.
    """
    if isinstance(value, dict):
        root = value.get('data_root') or root
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from input_files(item, root)
    elif isinstance(value, str) and value.endswith(_INPUT_SUFFIXES):
        path = os.path.join(root, value)
        if os.path.isfile(path):
            yield path


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 3] + '...'
