"""The reader of label files: seconds and memory of checking a large COCO file, of the data step and
of a split, against those of another build in the same run.

    git worktree add ../baseline COMMIT
    python benchmarks/coco_reader.py --baseline ../baseline --runs 3

Makes a set of 100,000 images with 900,000 polygons in a temporary folder (800 MB), the same for
a seed. The two builds take turns. Seconds are of the wall clock, and those of processors that all
processes took; memory is the highest sum over the processes, looked at ten times a second, in which
pages that several share count once. Needs a system that tells the time of ended processes, so not
Windows.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from mmcast.cli.errors import report_errors
from mmcast.errors import CASTError

ROOT = Path(__file__).resolve().parent.parent
HEIGHT, WIDTH = 480, 640
POLYGONS = 9  # an image
CLASSES = 8
_PREPARE = (
    'from mmcast.coco.custom import prepare_custom_data as prepare; '
    "prepare('data', 'labels.json', 'more', 'out')"
)
COMMANDS = {
    'check': ['-m', 'mmcast', 'check', 'data/labels.json', '--no-images'],
    'prepare': ['-c', _PREPARE],
    'split': [
        *('-m', 'mmcast', 'split', 'data/labels.json', 'out/labeled.json', 'out/unlabeled.json'),
        *('--percent', '10', '--stratify'),
    ],
}


def write_set(folder: Path, images: int, seed: int) -> None:
    """``labels.json``, the folder ``images`` of its images, and some unlabeled ones in ``more``."""
    rng = np.random.default_rng(seed)
    Image.new('1', (WIDTH, HEIGHT)).save(folder / 'image.png')
    picture = (folder / 'image.png').read_bytes()
    for name, number in (('images', images), ('more', 10)):
        (folder / name).mkdir()
        for place in range(number):
            (folder / name / f'{name}_{place:06d}.png').write_bytes(picture)
    with (folder / 'labels.json').open('w', encoding='utf-8') as file:
        listed = [
            dict(id=place + 1, file_name=f'images_{place:06d}.png', height=HEIGHT, width=WIDTH)
            for place in range(images)
        ]
        categories = [dict(id=number + 1, name=f'class {number}') for number in range(CLASSES)]
        head = json.dumps(dict(images=listed, categories=categories))
        file.write(head[:-1] + ', "annotations": [')
        for number, annotation in enumerate(annotations(rng, images)):
            file.write(('' if number == 0 else ', ') + json.dumps(annotation))
        file.write(']}')


def annotations(rng: np.random.Generator, images: int) -> Iterator[dict]:
    """Stars of 5 to 40 points, as people draw around objects."""
    for number in range(images * POLYGONS):
        points = int(rng.integers(5, 41))
        angle = np.sort(rng.uniform(0, 2 * np.pi, points))
        radius = rng.uniform(15, 60) * rng.uniform(0.7, 1, points)
        x = np.clip(rng.uniform(60, WIDTH - 60) + radius * np.cos(angle), 0, WIDTH).round(2)
        y = np.clip(rng.uniform(60, HEIGHT - 60) + radius * np.sin(angle), 0, HEIGHT).round(2)
        area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
        yield dict(
            id=number + 1,
            image_id=number // POLYGONS + 1,
            category_id=int(rng.integers(CLASSES)) + 1,
            segmentation=[np.stack([x, y], axis=1).ravel().tolist()],
            bbox=[float(x.min()), float(y.min()), float(np.ptp(x)), float(np.ptp(y))],
            area=round(float(area), 2),
            iscrowd=0,
        )


def measure(command: list[str], build: Path, folder: Path) -> tuple[float, float, float]:
    """Seconds, those of processors, and gigabytes at the peak, of a Python process of a build and
    those it starts.
    """
    shutil.rmtree(folder / 'out', ignore_errors=True)
    (folder / 'out').mkdir()
    environment = dict(os.environ, PYTHONPATH=str(build))
    with tempfile.TemporaryFile() as said:
        start, before = time.perf_counter(), os.times()
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=said, stderr=said
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.1)
        seconds, after = time.perf_counter() - start, os.times()
        if process.returncode:
            said.seek(0)
            lines = said.read().decode(errors='replace').strip().splitlines()
            raise CASTError(f'{build}: {" ".join(command)} failed: {lines[-1:]}')
    processors = sum(after[2:4]) - sum(before[2:4])  # user and system time of children
    return seconds, processors, peak / 1e9


def memory(pid: int) -> int:
    """Bytes of a process and those below it."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in processes:
            found = process.memory_full_info()
            total += getattr(found, 'pss', found.rss)
    except psutil.Error:  # it ended meanwhile
        pass
    return total


def spread(values: np.ndarray, unit: str = '') -> str:
    return f'{np.median(values):.2f}{unit} ({values.min():.2f} to {values.max():.2f})'


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--baseline', type=Path, metavar='FOLDER', help='checkout to compare with')
    parser.add_argument('--images', type=int, default=100_000)
    parser.add_argument('--runs', type=int, default=3, help='turns of each build (default 3)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--commands', nargs='+', choices=COMMANDS, default=list(COMMANDS), help='default: all'
    )
    args = parser.parse_args()
    builds = dict(here=ROOT)
    if args.baseline:
        if not (args.baseline / 'mmcast').is_dir():
            raise CASTError(f'{args.baseline} is no checkout of mmcast; give one with --baseline')
        builds['baseline'] = args.baseline.resolve()
    costs: dict[tuple[str, str], list] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / 'data').mkdir()
        write_set(folder / 'data', args.images, args.seed)
        size = (folder / 'data/labels.json').stat().st_size / 1e6
        polygons = args.images * POLYGONS
        print(
            f'{args.images} images, {polygons} polygons, {size:.0f} MB, {args.runs} runs',
            flush=True,
        )
        for turn in range(args.runs):
            for command in args.commands:
                for build in list(builds)[:: 1 if turn % 2 else -1]:
                    found = measure(COMMANDS[command], builds[build], folder)
                    costs.setdefault((command, build), []).append(found)
    for command in args.commands:
        found = {build: np.array(costs[command, build]).T for build in builds}
        if args.baseline:
            found['ratio'] = found['here'] / found['baseline']
        for name, values in found.items():
            units = ('', '', '') if name == 'ratio' else (' s', ' s CPU', ' GB')
            columns = (f'{spread(row, unit):34s}' for row, unit in zip(values, units))
            print(f'{command:8s}{name:10s}{"".join(columns)}'.rstrip())


if __name__ == '__main__':
    main()
