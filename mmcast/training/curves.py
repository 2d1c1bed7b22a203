"""Reading back what a run logged."""

import json
import math
from collections import defaultdict
from pathlib import Path

from mmcast.files import write_atomically

Curves = dict[str, list[tuple[int, float]]]
_NUMBER = 'start.txt'


def number_start(log_dir: Path) -> None:
    """Writes into the log folder of a start which one of its work directory it is, counted from 1.

    MMEngine names the folder after the clock, which may be set back between two starts.
    """
    earlier = [_number_of(path.parent) for path in log_dir.parent.glob(f'*/{_NUMBER}')]
    write_atomically(log_dir / _NUMBER, str(max(earlier, default=0) + 1))


def _number_of(log_dir: Path) -> int:
    """0 where none can be read: of an earlier version's start."""
    try:
        return int((log_dir / _NUMBER).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return 0


def read_curves(folder: Path) -> Curves:
    """All logged scalars of a step over iterations, from ``<timestamp>/vis_data/scalars.json`` of
    each start.

    Where a resumed start repeats iterations of the one before, the later values count.
    """
    values: dict[str, dict[int, float]] = defaultdict(dict)
    logs = folder.glob('*/vis_data/scalars.json')
    for path in sorted(logs, key=lambda path: (_number_of(path.parent.parent), path)):
        for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
            entry = _parse_scalars(line)
            for key, value in entry.items():
                if key != 'step' and isinstance(value, (int, float)):
                    values[key][entry.get('step', 0)] = float(value)
    return {key: sorted(points.items()) for key, points in values.items()}


def not_finite(folder: Path) -> list[str]:
    """Names of the losses and metrics that were ever logged as infinite or not a number."""
    return [
        key
        for key, points in read_curves(folder).items()
        if not all(math.isfinite(value) for _, value in points)
    ]


def _parse_scalars(line: str) -> dict:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:  # the last line of a killed run
        return {}
    return entry if isinstance(entry, dict) else {}
