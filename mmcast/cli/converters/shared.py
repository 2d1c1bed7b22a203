"""What the commands that convert exports of annotation tools share."""

import argparse
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmcast.cli.options import add_force, add_num_workers

if TYPE_CHECKING:
    from mmcast.coco.converters.exports import Written


def add_out_file(parser: argparse.ArgumentParser, root: str, rectangles: bool = True) -> None:
    """Adds ``--out`` of a converter that writes one file, and what it has beside that.

    Args:
        parser: of the command.
        root: what ``annotations/instances.json`` is written to, in words.
        rectangles: whether its objects may be rectangles.
    """
    parser.add_argument(
        '--out', type=Path, help=f'the new COCO file (default annotations/instances.json in {root})'
    )
    if rectangles:
        parser.add_argument(
            '--rectangles-are-masks',
            action='store_true',
            help='take an export in which every object is a rectangle',
        )
    add_num_workers(parser)
    add_force(parser, 'an existing file')


def add_images(parser: argparse.ArgumentParser) -> None:
    """Adds ``--images``."""
    parser.add_argument(
        '--images', type=Path, help='folder of the images, if they are not beside the file'
    )


def add_out_dir(parser: argparse.ArgumentParser, files: str) -> None:
    """Adds ``--out-dir`` of a converter that writes a file for each split.

    Args:
        parser: of the command.
        files: what they are called.
    """
    parser.add_argument(
        '--out-dir', type=Path, help=f'folder of {files} (default annotations in the data set)'
    )
    add_num_workers(parser)
    add_force(parser, 'existing files')


def report(counts: 'Mapping[Path, Written]', data_root: Path) -> None:
    """Prints what was written, what was left out or mended, and the next command.

    Args:
        counts: as the converters return them.
        data_root: what file names are relative to.
    """
    for out_file, count in counts.items():
        print(f'{out_file}: {count.images} images, {count.objects} objects')
        for what, number in count.notes.items():
            print(f'  {number} {what}')
    files = {path.stem.removeprefix('instances_'): path for path in counts}
    labeled = files.get('train') or next(iter(counts))
    settings = {'data_root': str(data_root), 'labeled': _below(labeled, data_root)}
    if 'val' in files and labeled != files['val']:
        settings['val'] = _below(files['val'], data_root)
    words = [f'variables.{name}={value}' for name, value in settings.items()]
    print(
        'next: mmcast train cast_custom.py --cfg-options '
        f'{subprocess.list2cmdline(words)} variables.unlabeled=FOLDER'
    )


def _below(path: Path, root: Path) -> str:
    """As a setting names a file: relative to the data root if it is below it."""
    name = Path(os.path.relpath(path, root)).as_posix()
    return str(path.absolute()) if name.startswith('../') else name
