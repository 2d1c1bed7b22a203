"""`mmcast inspect` on a large pseudo-label file: seconds and memory of this build and of another.

    git worktree add ../baseline COMMIT
    python benchmarks/inspection.py --baseline ../baseline --labels 1000000 --rounds 1

Makes a file of ten labels an image and held-out ground truth in a temporary folder, and gives the
command with and without the ground truth in both builds, in turns. Seconds are of the wall clock,
and those of processors that all processes took; memory is the highest sum over the processes. The
figures that the builds write are compared. Needs a system that tells the time of ended processes,
so not Windows.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from coco_reader import measure
from pseudo_labels import CLASSES, Records

from mmcast.cli.errors import report_errors
from mmcast.errors import CASTError
from mmcast.pseudo_labels.store import make_info, write_store

ROOT = Path(__file__).resolve().parent.parent


class Truth:
    """Ground truth: seven of ten of the labels, one in fifty a group.

    Args:
        records: of the labels.
    """

    def __init__(self, records: Records) -> None:
        self.records = records

    def __iter__(self) -> Iterator[dict]:
        rng = np.random.default_rng(2)
        for record in self.records:
            kept = [
                dict(label, iscrowd=int(rng.random() < 0.02))
                for label in record['annotations']
                if rng.random() < 0.7
            ]
            for label in kept:
                del label['score']
            yield dict(image=record['image'], annotations=kept)


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--baseline', required=True, help='folder of the other build')
    parser.add_argument('--labels', type=int, default=1_000_000)
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument(
        '--parts', nargs='+', choices=['labels', 'truth'], default=['labels', 'truth']
    )
    args = parser.parse_args()
    builds = {'baseline': Path(args.baseline).resolve(), 'this build': ROOT}
    with tempfile.TemporaryDirectory() as name:
        folder, records = Path(name), Records(args.labels)
        categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, 1)]
        write_store(folder / 'labels.json', make_info(), categories, records)
        write_store(folder / 'truth.json', {}, categories, Truth(records))
        size = (folder / 'labels.json').stat().st_size / 1e6
        print(f'{args.labels} labels, {size:.0f} MB', flush=True)
        for part in args.parts:
            compare(part, builds, folder, args.rounds)


def compare(part: str, builds: dict[str, Path], folder: Path, rounds: int) -> None:
    command = ['-m', 'mmcast', 'inspect', 'labels.json', '--out', 'out/page.html']
    command += ['--json', 'out/page.json', *(['--hidden', 'truth.json'] if part == 'truth' else [])]
    costs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in builds}
    written = set()
    for _ in range(rounds):
        for name, build in builds.items():
            costs[name].append(measure(command, build, folder))
            written.add((folder / 'out/page.json').read_bytes())
    for name, found in costs.items():
        (wall, cpu, memory), spread = np.median(found, axis=0), np.array(found)[:, 0]
        print(
            f'{part:8s}{name:12s}{wall:7.1f} s ({spread.min():.1f} to {spread.max():.1f}), '
            f'{cpu:.1f} s of CPU, {memory:.2f} GB'
        )
    shares = np.array(costs['this build']) / np.array(costs['baseline'])
    wall, cpu, memory = np.median(shares, axis=0)
    print(
        f'{part}: {wall:.2f} of its time ({shares[:, 0].min():.2f} to {shares[:, 0].max():.2f}), '
        f'{cpu:.2f} of its CPU seconds, {memory:.2f} of its memory',
        flush=True,
    )
    if len(written) > 1:
        raise CASTError(f'{part}: the builds write other figures')


if __name__ == '__main__':
    main()
