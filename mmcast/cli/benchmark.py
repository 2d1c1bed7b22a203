"""Size and speed of models in one table: parameters, FLOPs, latency, FPS, peak memory."""

import argparse
import sys

from mmcast.cli.options import add_force, check_output_files

EXAMPLES = {
    'an exported student, in torch and as an ONNX file, at the size of the toy': (
        '{command} student student.onnx --size 112 224'
    ),
    'compared with Mask2Former at half the size of Cityscapes; the table goes into a file too': (
        '{command} mine=student mask2former=benchmarks/mask2former_r50.py --size 512 1024 '
        '--md speed.md'
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'entries',
        nargs='+',
        metavar='ENTRY',
        help='[NAME=]FILE.onnx, folder of an exported student, CONFIG (random weights) or '
        'CONFIG,CHECKPOINT',
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        default=[512, 1024],
        metavar=('H', 'W'),
        help='default 512 1024',
    )
    parser.add_argument('--batch', type=int, default=1, help='images at once (default 1)')
    parser.add_argument(
        '--runs', type=int, default=20, help='measured runs of each model, in turns (default 20)'
    )
    parser.add_argument('--warmup', type=int, default=2, help='runs before them (default 2)')
    parser.add_argument(
        '--threads', type=int, default=0, help='of every model; default one per core'
    )
    parser.add_argument(
        '--backends',
        nargs='+',
        choices=['eager', 'compiled'],
        default=['eager'],
        help='of the torch models (default eager)',
    )
    parser.add_argument(
        '--device',
        default='cpu',
        help='of the torch models: cpu, cuda, cuda:1 ... (default cpu)',
    )
    parser.add_argument('--image', help='a photo to measure on, brought to the size; default noise')
    parser.add_argument('--json', help='file to write')
    parser.add_argument('--md', help='Markdown file to write')
    add_force(parser, 'these files')


def run(args: argparse.Namespace) -> None:
    check_output_files((args.json, args.md), force=args.force)
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mmcast.deploy.benchmarking import (
        HEADERS,
        Setting,
        benchmark,
        cells,
        machine,
        parse_entries,
        write_results,
    )
    from mmcast.devices import check_device
    from mmcast.errors import CASTError

    check_device(args.device)
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
        table.add_row(*map(Text, cells(row)))  # a name may have [ in it
    Console(width=160).print(table)
    write_results(rows, setting, args.json, args.md)
    if all('problem' in row for row in rows):
        raise CASTError('none of the models could be measured')
