"""Seconds from the command `make demo` to its first training iteration, of this build and another.

    git worktree add ../baseline COMMIT
    python benchmarks/first_iteration.py --baseline ../baseline --rounds 3

Copies each build into a temporary folder and gives the command there, with the environment of this
Python, in turns; what follows the first line of the log that tells of a training iteration is
ended. Seconds are those of processors that all processes took until then, and of the wall clock,
which a loaded machine stretches; memory is that of all processes then, in which pages that several
share count once. Needs make, and Linux for the memory.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from mmcast.cli.errors import report_errors
from mmcast.errors import CASTError

ROOT = Path(__file__).resolve().parent.parent
MADE = 'work_dirs', 'data/toy_cityscapes'
LEFT_OUT = shutil.ignore_patterns(
    '.*', 'work_dirs', 'toy_cityscapes', 'build', '__pycache__', 'shared'
)
LINE = 'Iter(train)'


def measure(build: Path) -> tuple[float, float, float]:
    """CPU seconds, GiB and wall clock seconds."""
    for name in MADE:
        shutil.rmtree(build / name, ignore_errors=True)
    start = time.perf_counter()
    process = subprocess.Popen(
        ['make', 'demo', 'READY=Makefile', f'VENV={sys.prefix}'],
        cwd=build,
        env=dict(os.environ, PYTHONPATH=str(build)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if LINE in line:
                return (*cost(process.pid), time.perf_counter() - start)
    finally:
        end(process)
    raise CASTError(f'{build}: no training iteration: {"".join(said[-5:])}')


def family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def cost(pid: int) -> tuple[float, float]:
    """CPU seconds and GiB of a process and all that it started."""
    seconds, memory = 0.0, 0
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            seconds += sum(process.cpu_times()[:4])
            memory += process.memory_full_info().pss
    return seconds, memory / 2**30


def end(process: subprocess.Popen) -> None:
    members = family(process.pid) if process.poll() is None else []
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(members, 10)
    process.wait()


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--baseline', required=True, help='folder of the other build')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--most', type=float, default=0.5, help='share of its CPU seconds (0.5)')
    args = parser.parse_args()
    builds = {'baseline': Path(args.baseline).resolve(), 'this build': ROOT}
    costs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in builds}
    with tempfile.TemporaryDirectory() as folder:
        copies = {name: Path(folder, name.replace(' ', '_')) for name in builds}
        for name, copy in copies.items():
            shutil.copytree(builds[name], copy, ignore=LEFT_OUT)
        for turn in range(args.rounds + 1):
            for name, copy in copies.items():
                found = measure(copy)
                if turn:  # the first turn compiles the modules of mmcast
                    costs[name].append(found)
            print(f'turn {turn} of {args.rounds}', file=sys.stderr, flush=True)
    for name, found in costs.items():
        (cpu, memory, wall), spread = np.median(found, axis=0), np.array(found)[:, 0]
        print(
            f'{name:12s}{cpu:6.1f} s of CPU ({spread.min():.1f} to {spread.max():.1f}), '
            f'{wall:.1f} s of the wall clock, {memory:.2f} GiB'
        )
    ratios = np.array(costs['this build'])[:, 0] / np.array(costs['baseline'])[:, 0]
    print(f'share {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f}) of its CPU')
    if np.median(ratios) > args.most:
        raise CASTError(f'more than {args.most} of the CPU seconds of the baseline')


if __name__ == '__main__':
    main()
