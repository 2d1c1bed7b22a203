"""Means, intervals and the files of a table."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student_t
from table_rows import Difference, Row, Table, figure_title
from table_runs import Run, find_metric

from mmcast.training.curves import read_curves

CONFIDENCE = 0.95
Seeds = Mapping[int, float]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        spread: their sample standard deviation, None of one value.
        half: half of the width of the interval that covers the true mean in 95 of 100 cases if the
            values are normally distributed (Student's t with n - 1 degrees of freedom); None of one
            value.
        seeds: the values.
    """

    mean: float
    spread: float | None
    half: float | None
    seeds: dict[int, float]


def estimate(values: Seeds) -> Estimate | None:
    """Mean, spread and interval; None of no value."""
    found = [values[seed] for seed in sorted(values)]
    if not found:
        return None
    if len(found) == 1:
        return Estimate(found[0], None, None, dict(values))
    spread = stdev(found)
    quantile = float(student_t.ppf((1 + CONFIDENCE) / 2, len(found) - 1))
    half = quantile * spread / math.sqrt(len(found))
    return Estimate(mean(found), spread, half, dict(sorted(values.items())))


def paired(plus: Seeds, minus: Seeds) -> Estimate | None:
    """The differences of the seeds that both have."""
    both = sorted(plus.keys() & minus.keys())
    return estimate({seed: plus[seed] - minus[seed] for seed in both})


def part_of_the_way(start: Seeds, reached: Seeds, end: Seeds) -> float | None:
    """(reached - start) / (end - start) of the means over the seeds that all three have."""
    seeds = start.keys() & reached.keys() & end.keys()
    if not seeds:
        return None
    low, middle, high = (mean(values[seed] for seed in seeds) for values in (start, reached, end))
    return (middle - low) / (high - low) if high != low else None


def read_row(run: Run, step: str, read: str, metric: str) -> dict[str, Any] | None:
    """What a run says of a row; None where its step is not finished.

    Args:
        run: of one seed.
        step: that made the network.
        read: that tested it; ``step`` itself where its validation is read.
        metric: which AP.

    Returns:
        AP and AP50 in percent, and how it was made.
    """
    if any(name in run.failed or not run.state.finished(name) for name in (step, read)):
        return None
    made, tested = run.state.records[step], run.state.records[read]
    checkpoint = _read_checkpoint(run, step, read)
    value, value50 = (find_metric(tested['metrics'], name) for name in (metric, f'{metric}_50'))
    return dict(
        ap=None if value is None else 100 * value,
        ap50=None if value50 is None else 100 * value50,
        metrics=tested['metrics'],
        checkpoint=checkpoint and run.state.portable(checkpoint),
        iteration=_iteration(checkpoint),
        iterations=made['iterations'],
        validations=_validations(run, step, metric),
        seconds=made['seconds'],
        cpu_seconds=made.get('cpu_seconds'),
        resumed=made['resumed'],
        versions=made.get('versions'),
        command=['mmcast', *run.command(list(dict.fromkeys((step, read))))],
    )


def _read_checkpoint(run: Run, step: str, read: str) -> str | None:
    """The checkpoint whose figures are read."""
    outputs = run.state.outputs(step)
    if read == step:
        return outputs.get('best_checkpoint') or outputs.get('checkpoint')
    return run.plan.step(read, run.state.folder(read), run.state).definition['checkpoint']


def _iteration(checkpoint: str | None) -> int | None:
    """The iteration that MMEngine's name of a checkpoint says."""
    found = re.search(r'iter_(\d+)\.pth$', checkpoint or '')
    return int(found[1]) if found else None


def _validations(run: Run, step: str, metric: str) -> list[tuple[int, float]]:
    """Iteration and AP in percent of each validation on the way."""
    curves = read_curves(run.state.folder(step))
    key = next((key for key in curves if key == metric or key.endswith(f'/{metric}')), None)
    return [(iteration, 100 * value) for iteration, value in curves[key]] if key else []


@dataclass
class Results:
    """A table with its figures.

    Attributes:
        title: what is shown, of which data.
        table: its rows and differences.
        rows: by the name of a row and the seed, what :func:`read_row` gives.
        notes: sentences below it.
        facts: of the JSON file: command, commit and so on.
    """

    title: str
    table: Table
    rows: dict[str, dict[int, dict]]
    notes: list[str]
    facts: dict[str, Any]

    @property
    def figure(self) -> str:
        """What the figures are, for the head of a column."""
        return figure_title(self.facts.get('metric', 'segm_mAP'))

    def values(self, name: str, key: str = 'ap') -> dict[int, float]:
        """A figure by seed, where it is known."""
        found = self.rows.get(name, {})
        return {seed: row[key] for seed, row in found.items() if row[key] is not None}

    def difference(self, item: Difference) -> Estimate | None:
        return paired(self.values(item.plus), self.values(item.minus))

    def markdown(self) -> str:
        """Two tables, and the notes."""
        lines = [f'# {self.title}', '', *self._figures(), '']
        if self.table.differences:
            lines += [*self._differences(), '']
        for start, reached, end in self.table.way:
            part = part_of_the_way(*map(self.values, (start, reached, end)))
            if part is not None:
                titles = {row.name: row.title for row in self.table.rows}
                ends = f'from "{titles[start]}" to "{titles[end]}" (means)'
                lines += [f'{titles[reached]}: {100 * part:.0f} % of the way {ends}.', '']
        return '\n'.join([*lines, *self.notes, ''])

    def _figures(self) -> list[str]:
        lines = [
            f'| | {self.figure} | by seed | AP50 | read at iteration | CPU minutes |',
            '|---' * 6 + '|',
        ]
        for row in self.table.rows:
            found = self.rows.get(row.name, {})
            ap, ap50 = (estimate(self.values(row.name, key)) for key in ('ap', 'ap50'))
            minutes = [  # of a resumed step they are those of its last start
                one['cpu_seconds'] / 60
                for one in found.values()
                if one['cpu_seconds'] and not one['resumed']
            ]
            cells = [
                row.title,
                _spread(ap),
                _by_seed(ap),
                _spread(ap50),
                _numbers(one['iteration'] for one in found.values()),
                f'{mean(minutes):.2f}' if minutes else '',
            ]
            lines.append(f'| {" | ".join(cells)} |')
        return lines

    def _differences(self) -> list[str]:
        lines = [
            f'| difference | {self.figure} | 95 % interval | by seed | seeds |',
            '|---' * 5 + '|',
        ]
        for item in self.table.differences:
            found = self.difference(item)
            number = len(found.seeds) if found else 0
            cells = [
                item.title,
                _signed(found),
                _interval(found),
                _by_seed(found, '+'),
                str(number),
            ]
            lines.append(f'| {" | ".join(cells)} |')
        return lines

    def content(self) -> dict[str, Any]:
        """All of it, for a JSON file."""
        return dict(
            self.facts,
            title=self.title,
            notes=self.notes,
            rows=[
                dict(
                    vars(row),
                    name=row.name,
                    **{
                        key: _as_dict(estimate(self.values(row.name, key)))
                        for key in ('ap', 'ap50')
                    },
                    seeds=self.rows.get(row.name, {}),
                )
                for row in self.table.rows
            ],
            differences=[
                dict(vars(item), **(_as_dict(self.difference(item)) or {}))
                for item in self.table.differences
            ],
        )


def _as_dict(found: Estimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    low, high = (
        (None, None) if found.half is None else (found.mean - found.half, found.mean + found.half)
    )
    return dict(mean=found.mean, sd=found.spread, interval=[low, high], by_seed=found.seeds)


def _spread(found: Estimate | None) -> str:
    if found is None:
        return '-'
    return f'{found.mean:.1f}' + ('' if found.spread is None else f' ± {found.spread:.1f}')


def _signed(found: Estimate | None) -> str:
    return f'{found.mean:+.1f}' if found else '-'


def _interval(found: Estimate | None) -> str:
    if found is None or found.half is None:
        return '-'
    return f'{found.mean - found.half:+.1f} to {found.mean + found.half:+.1f}'


def _by_seed(found: Estimate | None, sign: str = '') -> str:
    return ', '.join(f'{value:{sign}.1f}' for value in found.seeds.values()) if found else ''


def _numbers(values: Any) -> str:
    """Numbers in the order of the seeds; one, where all are the same."""
    known = [f'{value:,}' for value in values if value is not None]
    return known[0] if len(set(known)) == 1 else ', '.join(known)


def summary_table(run: Run) -> Table:
    """The rows of a pipeline's own summary."""
    return Table([Row(row['row'], row['step']) for row in run.plan.rows])


QUALITY = dict(ap='mask AP', ap50='AP50', precision='precision', recall='recall')


@dataclass
class LabelTable:
    """The quality of pseudo-labels over seeds: lines of Markdown, and content of the JSON file."""

    lines: list[str]
    content: dict[str, dict[str, dict | None]]


def label_table(runs: Mapping[int, Run]) -> LabelTable:
    """Of the pseudo-labels that finished pipelines compared with ground truth, in percent."""
    values: dict[str, dict[str, dict[int, float]]] = {}
    for seed, run in runs.items():
        for title, quality in _quality(run).items():
            for key, value in quality.items():
                values.setdefault(title, {key: {} for key in QUALITY})[key][seed] = value
    content = {
        title: {key: estimate(found) for key, found in quality.items()}
        for title, quality in values.items()
    }
    lines = []
    if content:
        lines = [f'| pseudo-labels | {" | ".join(QUALITY.values())} |', '|---' * 5 + '|']
        for title, quality in content.items():
            cells = [f'{_spread(found)} ({_by_seed(found)})' for found in quality.values()]
            lines.append(f'| {title} | {" | ".join(cells)} |')
        lines.append('')
    return LabelTable(
        lines,
        {
            title: {key: _as_dict(found) for key, found in quality.items()}
            for title, quality in content.items()
        },
    )


def _quality(run: Run) -> dict[str, dict[str, float]]:
    """By step; without what is not known, as there was no label to be right."""
    path = run.work_dir / 'pseudo_labels.json'
    stores = json.loads(path.read_text(encoding='utf-8'))['stores'] if path.exists() else {}
    return {
        title: {
            key: 100 * store['quality'][key] for key in QUALITY if store['quality'][key] is not None
        }
        for title, store in stores.items()
        if 'quality' in store
    }
