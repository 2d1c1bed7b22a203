"""Reading back what a run logged."""

import json
import math
from collections import defaultdict
from pathlib import Path

Curves = dict[str, list[tuple[int, float]]]


def read_curves(folder: Path) -> Curves:
    """All logged scalars of a step over iterations, from ``<timestamp>/vis_data/scalars.json`` of
    each start.

    Where a resumed start repeats iterations of the one before, the later values count.
    """
    values: dict[str, dict[int, float]] = defaultdict(dict)
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
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
        return json.loads(line)
    except json.JSONDecodeError:  # the last line of a killed run
        return {}
