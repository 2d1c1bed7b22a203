"""Runs pipelines for several seeds; prints mean and spread of every row of their summaries and of
their pseudo-labels.

    python benchmarks/seeds.py configs/cast_toy.py configs/baselines/cast_toy_baselines.py --seeds 0
    1 2

Finished seeds are kept, an interrupted one resumes, as pipelines do.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mmcast.cli.errors import report_errors

#: Of the summary's rows, and of the pseudo-labels that a pipeline compares with ground truth;
#: in percent.
SUMMARY = dict(mask_ap='mask AP', mask_ap50='AP50', minutes='minutes')
LABELS = dict(ap='mask AP', ap50='AP50', precision='precision', recall='recall')


def run(config: Path, seed: int, work_dir: Path) -> tuple[dict[str, dict], dict[str, dict]]:
    """The summary rows of one pipeline with one seed, and the quality of its pseudo-labels in
    percent, by step.
    """
    from mmcast import train  # here, so that --help does not wait for torch

    train(str(config), work_dir=str(work_dir), seed=seed)
    rows = {row['row']: row for row in json.loads((work_dir / 'summary.json').read_text())}
    inspection = work_dir / 'pseudo_labels.json'
    stores = json.loads(inspection.read_text())['stores'] if inspection.exists() else {}
    return rows, quality_in_percent(stores)


def quality_in_percent(stores: dict[str, dict]) -> dict[str, dict]:
    """Of those that an inspection compared with ground truth; not a number where there was no
    label to be right.
    """
    return {
        title: {
            key: math.nan if value is None else 100 * value
            for key, value in store['quality'].items()
            if key in LABELS
        }
        for title, store in stores.items()
        if 'quality' in store
    }


def spread(values: list[float]) -> str:
    """Mean, sample standard deviation and every value, so that a reader can judge for himself."""
    if len(values) == 1:
        return f'{values[0]:.1f}'
    every = ', '.join(f'{value:.1f}' for value in values)
    return f'{np.mean(values):.1f} +- {np.std(values, ddof=1):.1f} ({every})'


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='+', type=Path, help='pipeline configs')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/seeds'))
    args = parser.parse_args()

    rows: dict[str, dict[str, list[float]]] = {}
    labels: dict[str, dict[str, list[float]]] = {}
    for config in args.configs:
        for seed in args.seeds:
            found = run(config, seed, args.work_dir / f'{config.stem}_seed{seed}')
            collect(rows, found[0], SUMMARY)
            collect(labels, found[1], LABELS)
    show('', rows, SUMMARY)
    if labels:
        show('pseudo-labels', labels, LABELS)
    out = args.work_dir / f'{args.configs[0].stem}_seeds.json'
    out.write_text(json.dumps(dict(seeds=args.seeds, rows=rows, pseudo_labels=labels), indent=1))
    print(out)


def collect(
    results: dict[str, dict[str, list[float]]], found: dict[str, dict], columns: dict[str, str]
) -> None:
    """Appends one seed's values to those of the others."""
    for name, values in found.items():
        entry = results.setdefault(name, {key: [] for key in columns})
        for key in columns:
            entry[key].append(values[key])


def show(title: str, results: dict[str, dict[str, list[float]]], columns: dict[str, str]) -> None:
    table = Table(title, *columns.values())
    for name, entry in results.items():
        table.add_row(name, *(spread(entry[key]) for key in columns))
    Console(width=160).print(table)


if __name__ == '__main__':
    main()
