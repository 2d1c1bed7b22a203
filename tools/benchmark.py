r"""Size and speed of models in one table: parameters, FLOPs, latency, FPS, peak memory.

    python tools/benchmark.py student=work_dirs/cast_toy/student student.onnx \
        mask2former=configs/benchmarks/mask2former_r50.py --size 512 1024 --md speed.md

An entry is [NAME=]FILE.onnx, a folder of tools/export_student.py, CONFIG (random weights) or
CONFIG,CHECKPOINT.
"""

import argparse
import sys
from pathlib import Path

from mmcast.cli.errors import report_errors
from mmcast.errors import CASTError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('entries', nargs='+', metavar='ENTRY')
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        default=[512, 1024],
        metavar=('H', 'W'),
        help='default 512 1024',
    )
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument(
        '--runs', type=int, default=20, help='measured runs of each model, in turns (default 20)'
    )
    parser.add_argument('--warmup', type=int, default=2)
    parser.add_argument('--threads', type=int, default=0, help='of every model; default one a core')
    parser.add_argument(
        '--backends',
        nargs='+',
        choices=['eager', 'compiled'],
        default=['eager'],
        help='of the torch models (default eager)',
    )
    parser.add_argument(
        '--device', default='cpu', help='of the torch models: cpu, cuda, cuda:1 ...'
    )
    parser.add_argument('--image', help='a photo to measure on, brought to the size; default noise')
    parser.add_argument('--json', help='file to write')
    parser.add_argument('--md', help='Markdown file to write')
    parser.add_argument('--force', action='store_true', help='replace these files')
    return parser.parse_args()


@report_errors
def main() -> None:
    args = parse_args()
    for path in filter(None, (args.json, args.md)):
        if Path(path).exists() and not args.force:
            raise CASTError(f'{path} exists: delete it, name another file or use --force')
    from rich.console import Console
    from rich.table import Table

    from mmcast.deploy.benchmarking import (
        HEADERS,
        Setting,
        benchmark,
        cells,
        machine,
        parse_entries,
        write_results,
    )

    setting = Setting(
        tuple(args.size), args.batch, args.runs, args.warmup, args.threads, args.device, args.image
    )
    rows = benchmark(
        parse_entries(args.entries, args.backends),
        setting,
        show=lambda line: print(line, file=sys.stderr, flush=True),
    )
    table = Table(*HEADERS, title=machine(setting))
    for row in rows:
        table.add_row(*cells(row))
    Console(width=160).print(table)
    write_results(rows, setting, args.json, args.md)
    if all('problem' in row for row in rows):
        raise CASTError('none of the models could be measured')


if __name__ == '__main__':
    main()
