"""CPU seconds of start-up: the help of every command and tool, the modules that need no network,
and ``import mmcast.models`` compared with ``import mmdet.models``.

    python benchmarks/startup.py --runs 5

Processes start in turns, after one turn that is not measured, and their user and system time is
what counts. Exit status 1 where a budget is exceeded: 1.5 s for each but the two imports, whose
quotient may be 1.15. Needs a system that tells the time of ended processes, so not Windows.
"""

import argparse
import os
import pkgutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mmcast.coco
import mmcast.masks
from mmcast.cli.errors import report_errors
from mmcast.cli.main import SECTIONS, Group
from mmcast.errors import CASTError

ROOT = Path(__file__).resolve().parent.parent
SECONDS, QUOTIENT = 1.5, 1.15
OURS = 'import mmcast.models'
# The stand-in for mmcv's operators, without which mmdet may not import, comes with mmcast; that
# itself costs some milliseconds.
THEIRS = 'import mmcast, mmdet.models'
GROUND_FLOORS = ('errors', 'files', 'images', 'locks', 'memory', 'version', 'compat', 'configs')


def help_commands() -> Iterator[tuple[str, list[str]]]:
    """By name, what to start."""
    yield 'mmcast --help', ['-m', 'mmcast', '--help']
    for section in SECTIONS.values():
        for name, command in section.items():
            names = (
                [f'{name} {sub}' for sub in command.commands] if isinstance(command, Group) else []
            )
            for words in [name, *names]:
                yield f'mmcast {words} --help', ['-m', 'mmcast', *words.split(), '--help']
    for path in sorted((ROOT / 'tools').rglob('*.py')):
        yield f'{path.relative_to(ROOT)} --help', [str(path), '--help']


def light_modules() -> list[str]:
    """The modules that need no network."""
    modules = [f'mmcast.{name}' for name in GROUND_FLOORS]
    for package in (mmcast.masks, mmcast.coco):
        found = pkgutil.walk_packages(package.__path__, f'{package.__name__}.')
        modules += [package.__name__, *(module.name for module in found)]
    return modules


def cpu_seconds(arguments: list[str]) -> float:
    """User and system time of a Python process."""
    before = os.times()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT)
    after = os.times()
    if done.returncode:
        raise CASTError(f'{" ".join(arguments)} failed: {done.stderr.strip().splitlines()[-1:]}')
    return (
        after.children_user - before.children_user + after.children_system - before.children_system
    )


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--runs', type=int, default=5, help='measured turns (default 5)')
    args = parser.parse_args()
    entries = dict(help_commands())
    entries['import of all that needs no network'] = ['-c', f'import {", ".join(light_modules())}']
    entries |= {code: ['-c', code] for code in (THEIRS, OURS)}
    times: dict[str, list[float]] = {name: [] for name in entries}
    for turn in range(args.runs + 1):
        for name, arguments in entries.items():
            spent = cpu_seconds(arguments)
            if turn:
                times[name].append(spent)
        print(f'turn {turn} of {args.runs}', file=sys.stderr, flush=True)
    times['quotient of the two'] = [
        ours / theirs for ours, theirs in zip(times[OURS], times[THEIRS])
    ]
    print(f'{"CPU seconds":52}{"min":>8}{"median":>8}{"max":>8}')
    for name, values in times.items():
        columns = (min(values), statistics.median(values), max(values))
        print(f'{name:52}' + ''.join(f'{value:8.2f}' for value in columns))
    budgets = {name: SECONDS for name in entries if name not in (OURS, THEIRS)}
    budgets['quotient of the two'] = QUOTIENT
    slow = [name for name, budget in budgets.items() if statistics.median(times[name]) > budget]
    if slow:
        raise CASTError(f'over budget: {", ".join(slow)}')


if __name__ == '__main__':
    main()
