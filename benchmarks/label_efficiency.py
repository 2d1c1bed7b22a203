"""One figure of AP over the number of labels, a panel for each data set.

    python benchmarks/tables.py labels --data toy
    python benchmarks/label_efficiency.py --out docs/images/label_efficiency.png

Draws what the tables `labels` found (`WORK_DIR/DATA/labels.json`), and trains nothing. What has no
result yet is said in its panel and printed.
"""

from __future__ import annotations

import argparse
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from table_rows import DATA_SETS, figure_title

from mmcast.cli.errors import report_errors
from mmcast.errors import CASTError

FEWEST_SEEDS = 3  # for an interval: that of two is 12.7 times their standard error
CURVES = dict(
    refine=('CAST, refined student', 'tab:blue'),
    supervised=('the student on the labels alone', 'tab:orange'),
)
INTERVAL = '95 % interval of the mean'
ALL = 'supervised_all', 'the student on all labels', 'tab:gray'


def command_of(data: str) -> str:
    """What makes the table of a data set."""
    return f'python benchmarks/tables.py labels --data {data}'


def read_table(work_dir: Path, data: str) -> dict[str, Any] | None:
    """The content of a data set's table ``labels``; None where there is none yet.

    Raises:
        CASTError: the file is not one that ``tables.py labels`` writes.
    """
    path = work_dir / data / 'labels.json'
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        _ = content['labeled_images'], content['seeds'], content['report_on'], content['metric']
        for row in content['rows']:
            _ = (
                row['name'],
                row['step'],
                row['title'],
                row['percent'],
                row['ap'] and row['ap']['by_seed'],
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CASTError(
            f'{path} is no table of labels ({error!r}): make it again with {command_of(data)}'
        ) from error
    return content


def missing(data: str, content: Mapping[str, Any] | None) -> list[str]:
    """What a table of a data set lacks, a line for each row without all seeds."""
    if content is None:
        return [f'no results yet; {command_of(data)}']
    names = [f'{step}@{percent:g}' for step in CURVES for percent in DATA_SETS[data].percents]
    known = {row['name'] for row in content['rows']}
    left_out = [name for name in [*names, ALL[0]] if name not in known]
    lines = [f'the table was made without {", ".join(left_out)}'] if left_out else []
    for row in content['rows']:
        found = list(row['ap']['by_seed']) if row['ap'] else []
        if len(found) < len(content['seeds']):
            seeds, every = (', '.join(map(str, part)) for part in (found, content['seeds']))
            has = f'of seeds {every} only {seeds}' if found else 'no result yet'
            lines.append(f'{row["title"]}: {has}')
    return lines


def plot(panels: Mapping[str, Mapping[str, Any] | None], paths: Sequence[Path]) -> None:
    """AP over the number of labeled images: each seed as a faint point, their mean as a line, and
    from ``FEWEST_SEEDS`` on the 95 % interval of the mean.

    Args:
        panels: what ``tables.py labels`` writes, by the data set's name; None: no results yet.
        paths: files to write, in the format of their ending.
    """
    figure = Figure(figsize=(4.6 * len(panels), 3.9), layout='constrained')
    handles: dict[str, Any] = {}
    for axis, (data, content) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items()
    ):
        if content is None or not any(row['ap'] for row in content['rows']):
            axis.set_title(DATA_SETS[data].title)
            _say_nothing(axis, data)
        else:
            axis.set_title(f'{DATA_SETS[data].title}, {_tested(content)}')
            handles |= _draw(axis, content)
            _say_missing(axis, missing(data, content))
    order = [*(title for title, _ in CURVES.values()), ALL[1], INTERVAL]
    handles = {title: handles[title] for title in order if title in handles}
    if handles:
        figure.legend(
            handles.values(),
            handles,
            loc='outside lower center',
            ncols=min(4, len(handles)),
            fontsize='small',
        )
    with rc_context({'svg.hashsalt': 'mmcast'}):  # the same figures give the same file
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            undated = {'Date': None} if path.suffix == '.svg' else None
            figure.savefig(path, dpi=150, metadata=undated)


def _say_nothing(axis: Axes, data: str) -> None:
    axis.set(xticks=[], yticks=[])
    text = f'no results yet\n\n{command_of(data).replace(" labels", chr(10) + "labels")}'
    axis.text(
        0.5,
        0.5,
        text,
        ha='center',
        va='center',
        fontsize='small',
        color='tab:gray',
        transform=axis.transAxes,
    )


def _say_missing(axis: Axes, lines: Sequence[str]) -> None:
    """Writes lines below a panel."""
    axis.annotate(
        '\n'.join(part for line in lines for part in textwrap.wrap(line, 70)),
        (0.5, 0),
        xytext=(0, -38),  # below the label of the axis
        xycoords='axes fraction',
        textcoords='offset points',
        ha='center',
        va='top',
        fontsize='x-small',
        color='tab:red',
    )


def _draw(axis: Axes, content: Mapping[str, Any]) -> dict[str, Any]:
    """Draws a table; what stands in the legend, by its text."""
    images = content['labeled_images']
    handles = {}
    for step, (title, colour) in CURVES.items():
        points = {
            images[str(row['percent'])]: row['ap']
            for row in content['rows']
            if row['step'] == step and row['ap'] and images[str(row['percent'])]
        }
        if points:
            handles[title] = _draw_curve(axis, dict(sorted(points.items())), colour)
    numbers = sorted({number for number in images.values() if number})
    step, title, colour = ALL
    found = next((row['ap'] for row in content['rows'] if row['step'] == step), None)
    if found:
        handles[title] = axis.axhline(found['mean'], color=colour, linestyle='--')
        every = content.get('all_images')
        if every:
            numbers.append(every)
            _draw_seeds(axis, every, found, colour)
        if _has_interval(found):
            axis.axhspan(*found['interval'], color=colour, alpha=0.12, linewidth=0)
    if any(_has_interval(row['ap']) for row in content['rows']):
        handles[INTERVAL] = axis.fill_between([], [], color='black', alpha=0.15)
    name = figure_title(content['metric'])
    axis.set(xscale='log', xlabel='labeled images', ylabel=f'{name} (%)')
    axis.set_xticks(numbers, [f'{number:,}' for number in numbers])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    return handles


def _draw_curve(axis: Axes, points: Mapping[int, Mapping[str, Any]], colour: str) -> Any:
    """Draws the results by the number of images; the line."""
    for number, found in points.items():
        _draw_seeds(axis, number, found, colour)
    nothing = [math.nan, math.nan]  # the band ends there
    lows, highs = zip(
        *(found['interval'] if _has_interval(found) else nothing for found in points.values())
    )
    axis.fill_between(list(points), lows, highs, color=colour, alpha=0.15, linewidth=0)
    axis.vlines(list(points), lows, highs, color=colour, alpha=0.4, linewidth=1)
    means = [found['mean'] for found in points.values()]
    (line,) = axis.plot(list(points), means, color=colour, marker='o', markersize=5)
    return line


def _draw_seeds(axis: Axes, number: int, found: Mapping[str, Any], colour: str) -> None:
    values = list(found['by_seed'].values())
    axis.plot([number] * len(values), values, '.', color=colour, alpha=0.4, markersize=6)


def _has_interval(found: Mapping[str, Any] | None) -> bool:
    return bool(found) and len(found['by_seed']) >= FEWEST_SEEDS


def _tested(content: Mapping[str, Any]) -> str:
    """On which images."""
    name = dict(test='test', val='validation')[content['report_on']]
    number = content.get('reported_images')
    return f'{number} {name} images' if number else f'{name} images'


@report_errors
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/tables'),
        help='of tables.py (default work_dirs/tables)',
    )
    parser.add_argument(
        '--out', type=Path, help='picture to write (default WORK_DIR/label_efficiency.png)'
    )
    args = parser.parse_args(arguments)
    panels = {
        name: read_table(args.work_dir, name) for name, data in DATA_SETS.items() if data.percents
    }
    if not any(panels.values()):
        raise CASTError(
            f'{args.work_dir} has no table of labels, so there is nothing to draw: make one with '
            f'{command_of(next(iter(panels)))}'
        )
    out = args.out or args.work_dir / 'label_efficiency.png'
    known = FigureCanvasBase.get_supported_filetypes()
    if out.suffix.removeprefix('.') not in known:
        raise CASTError(f'--out {out}: a picture ends in one of .{", .".join(sorted(known))}')
    plot(panels, [out])
    print(out)
    for name, content in panels.items():
        for line in missing(name, content):
            print(f'{name}: {line}')


if __name__ == '__main__':
    main()
