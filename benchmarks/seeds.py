"""Runs pipelines for several seeds and prints mean and spread of every row of their summaries.

    python benchmarks/seeds.py configs/cast_toy.py configs/baselines/cast_toy_baselines.py --seeds 0 1 2

Finished seeds are kept, an interrupted one goes on, as the pipelines do.
"""
import argparse
import json
import statistics
from pathlib import Path

import mmcast  # noqa: F401  before anything imports mmdet
from mmcast.command_line import report_errors
from rich.console import Console
from rich.table import Table


def run(config: Path, seed: int, work_dir: Path) -> list[dict]:
    """The summary rows of one pipeline with one seed."""
    from mmcast.engine.pipeline import run_pipeline
    run_pipeline(config, work_dir=work_dir, seed=seed)
    return json.loads((work_dir / 'summary.json').read_text())


def spread(values: list[float]) -> str:
    """Mean, sample standard deviation and every value, so that a reader can judge for himself."""
    if len(values) == 1:
        return f'{values[0]:.1f}'
    every = ', '.join(f'{value:.1f}' for value in values)
    return f'{statistics.mean(values):.1f} +- {statistics.stdev(values):.1f} ({every})'


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', type=Path, help='pipeline configs')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/seeds'))
    args = parser.parse_args()

    results: dict[str, dict[str, list[float]]] = {}
    for config in args.configs:
        for seed in args.seeds:
            for row in run(config, seed, args.work_dir / f'{config.stem}_seed{seed}'):
                entry = results.setdefault(row['row'], dict(mask_ap=[], mask_ap50=[], minutes=[]))
                for key, values in entry.items():
                    values.append(row[key])
    table = Table('', 'mask AP', 'AP50', 'minutes')
    for name, entry in results.items():
        table.add_row(name, *(spread(values) for values in entry.values()))
    Console(width=140).print(table)
    out = args.work_dir / f'{args.configs[0].stem}_seeds.json'
    out.write_text(json.dumps(dict(seeds=args.seeds, rows=results), indent=1))
    print(out)


if __name__ == '__main__':
    main()
