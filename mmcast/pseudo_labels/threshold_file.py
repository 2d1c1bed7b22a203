"""The JSON file with a threshold on ``score`` for each class; docs/pseudo_labels.md has the
schema.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from mmcast.errors import CASTError
from mmcast.files import write_atomically
from mmcast.version import __version__

KIND = 'mmcast thresholds'
FORMAT_VERSION = 1


def write_thresholds(path: str | os.PathLike, **content: Any) -> None:
    """Writes a file; ``classes`` has a dict with ``threshold`` by class name."""
    head = dict(kind=KIND, format_version=FORMAT_VERSION, mmcast=__version__)
    write_atomically(path, json.dumps(dict(head, **content), indent=1) + '\n')


def read_thresholds(path: str | os.PathLike, names: Iterable[str]) -> dict[str, float]:
    """The thresholds of some classes, by name.

    Raises:
        CASTError: the file is missing, none of this format, or lacks one of the classes.
    """
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except OSError as error:
        raise CASTError(
            f'{path}: cannot read the thresholds ({error.strerror}): check the path'
        ) from error
    except ValueError as error:
        raise CASTError(f'{path} is no JSON ({error}): give a file of a thresholds step') from error
    found = content if isinstance(content, Mapping) else {}
    if (found.get('kind'), found.get('format_version')) != (KIND, FORMAT_VERSION):
        raise CASTError(
            f'{path} is not a thresholds file of format {FORMAT_VERSION}: give the '
            'thresholds.json of a thresholds step'
        )
    names, classes = list(names), found.get('classes')
    if not isinstance(classes, Mapping):
        raise CASTError(f'{path} has no classes: give the thresholds.json of a thresholds step')
    missing = [name for name in names if name not in classes]
    if missing:
        raise CASTError(
            f'{path} has no threshold for {", ".join(missing)}, it has {", ".join(classes)}: '
            'choose thresholds with the same classes'
        )
    return {name: _threshold(classes[name], name, path) for name in names}


def _threshold(entry: Any, name: str, path: str | os.PathLike) -> float:
    value = entry.get('threshold') if isinstance(entry, Mapping) else entry
    if (
        not isinstance(entry, Mapping)
        or not isinstance(value, (int, float))
        or isinstance(value, bool)
        or not math.isfinite(value)
    ):
        raise CASTError(f'{path} has {value!r} as the threshold of {name}: give a number')
    return value
