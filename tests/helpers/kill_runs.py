"""Kills a pipeline with SIGKILL at random moments and compares what it ends with.

    python tests/helpers/kill_runs.py --kills 30 --seed 0 --folder kills

runs the whole of ``configs/cast_toy.py`` on two processes, with a few iterations a step: once
undisturbed, and once or several times with kills. A kill is of all processes at once, or of one:
torchrun, a rank, or a process that loads images; where the run needed that one no more and goes
on, all are killed then. After that the command is given again, until it ends.

It fails unless all of this holds:

- 20 seconds after a kill no process is left;
- a step that was finished is not run again, and its record stays as it is;
- records, metrics, the tensors of all checkpoints, the lists of what was logged and the
  pseudo-labels are those of the undisturbed run.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from pipelines import ROOT, records, torchrun

MARK = 'MMCAST_KILL_RUNS'  # in the environment of all processes of one start
SECONDS = 20.0  # after a kill
EARLY = 0.15  # share of the kills that may come before the first step begins
FIRST = '=== step'
KINDS = 'all', 'torchrun', 'rank', 'rank', 'loader'
TOY = [
    'variables.percent=25',
    'steps.data.kwargs.num_train=24',
    'steps.data.kwargs.num_val=4',
    'report.images=1',
    'step_options.train_cfg.max_iters=5',
    'step_options.train_cfg.val_interval=2',
    'step_options.default_hooks.checkpoint.interval=2',
]
VOLATILE = 'seconds', 'peak_memory_mb', 'fingerprint', 'resumed', 'versions'


@dataclass
class Start:
    """One start of a command, and all its processes."""

    command: list[str]
    log: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        modules = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
        environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=modules)
        environment[MARK] = self.mark
        self.before = len(self.log.read_text()) if self.log.exists() else 0
        with self.log.open('a') as file:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
            )

    def wait_for(self, text: str) -> None:
        """Until it has printed a text, or has ended."""
        while self.process.poll() is None and text not in self.log.read_text()[self.before :]:
            time.sleep(0.2)

    def processes(self) -> list[psutil.Process]:
        """All that live, torchrun first."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE:
                    mark = process.environ().get(MARK)
                    found += [process] if mark == self.mark else []
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return sorted(found, key=lambda process: process.pid)

    def kill(self, kind: str, rng: random.Random) -> str:
        """Kills all or one; what it killed, '' where there is nothing of this kind yet."""
        parent, alive = self.process.pid, self.processes()
        children = {
            process.pid: process.ppid() for process in alive if psutil.pid_exists(process.pid)
        }
        ranks = [pid for pid, above in children.items() if above == parent]
        chosen = {
            'all': list(children),
            'torchrun': [parent],
            'rank': ranks,
            'loader': [pid for pid, above in children.items() if above in ranks],
        }[kind]
        if kind in ('rank', 'loader') and chosen:
            place = rng.randrange(len(chosen))
            chosen, kind = [chosen[place]], f'{kind} {place}'
        for pid in chosen:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return kind if chosen else ''

    def goes_on(self) -> bool:
        """Whether it lives after a while and has printed something in it: a process that loads
        images may have done its part.
        """
        printed = self.log.stat().st_size
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(SECONDS)
        return self.process.poll() is None and self.log.stat().st_size > printed

    def left(self) -> tuple[float, list[str]]:
        """Seconds until all processes had ended, and command lines of those that had not."""
        begin = time.monotonic()
        while time.monotonic() - begin < SECONDS:
            self.process.poll()
            if not self.processes():
                break
            time.sleep(0.2)
        seconds, lines = time.monotonic() - begin, []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                lines.append(f'{process.pid} of {process.ppid()}: {" ".join(process.cmdline())}')
                process.kill()
        self.process.wait()
        return seconds, lines


def command_of(folder: Path) -> list[str]:
    """The shipped pipeline on toy scenes, on two processes."""
    return [
        *torchrun(2),
        *('tools/train.py', 'configs/cast_toy.py', '--launcher', 'pytorch'),
        *('--work-dir', str(folder / 'run'), '--cfg-options'),
        *(f'variables.data_root={folder}/data', *TOY),
    ]


def finished(folder: Path) -> dict:
    return {
        name: record
        for name, record in records(folder / 'run').items()
        if record['status'] == 'finished'
    }


def final_state(folder: Path) -> dict:
    """All that two runs should have in common, by file."""
    place, state = str(folder), {}
    for name, record in records(folder / 'run').items():
        kept = {key: value for key, value in record.items() if key not in VOLATILE}
        state[f'record of {name}'] = json.dumps(kept, sort_keys=True).replace(place, '')
    for path in sorted(folder.glob('run/*/*.pth')):
        state[str(path.relative_to(folder))] = torch.load(path, weights_only=False)['state_dict']
    for path in sorted(folder.glob('run/*/annotations.json')):
        content = json.loads(path.read_text())
        state[str(path.relative_to(folder))] = [
            content[key] for key in ('images', 'annotations', 'categories')
        ]
    return state


def equal(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    return a == b


def differences(expected: dict, got: dict) -> list[str]:
    return [
        f'{key} is {"not there" if key not in got else "another one"}'
        for key in expected.keys() | got.keys()
        if not (key in expected and key in got and equal(expected[key], got[key]))
    ]


def run_to_the_end(command: list[str], log: Path) -> float:
    begin, start = time.monotonic(), Start(command, log)
    start.process.wait()
    if start.process.returncode:
        raise SystemExit(f'a run that nobody killed failed:\n{log.read_text()[-3000:]}')
    _, left = start.left()
    if left:
        raise SystemExit(f'left of a run that ended: {left}')
    return time.monotonic() - begin


def kill_until_it_ends(
    folder: Path,
    command: list[str],
    kills: int,
    longest: float,
    rng: random.Random,
    say: Callable[[str], None],
) -> tuple[int, list[str]]:
    """Gives the command again and again, and kills it at a random moment each time.

    Returns:
        The number of kills, and what went wrong.
    """
    log, done, problems, known = folder / 'log.txt', 0, [], {}
    while done < kills:
        start = Start(command, log)
        if rng.random() > EARLY:
            start.wait_for(FIRST)
        try:
            start.process.wait(rng.uniform(0, longest))
        except subprocess.TimeoutExpired:
            kind = start.kill(rng.choice(KINDS), rng) or start.kill('all', rng)
            step = next(
                (
                    name
                    for name, record in records(folder / 'run').items()
                    if record['status'] == 'started'
                ),
                'no step',
            )
            if kind.startswith('loader') and start.goes_on():
                kind = f'{kind}, which was not missed, then {start.kill("all", rng)}'
            seconds, left = start.left()
            done += 1
            say(f'kill {done}: {kind} in {step}; {len(left)} left after {seconds:.1f} s')
            problems += [f'kill {done} ({kind} in {step}) left {line}' for line in left]
        else:
            if start.process.returncode:
                problems.append(f'a run that nobody killed failed: {log.read_text()[-3000:]}')
            break
        now = finished(folder)
        problems += [f'step {name} was run again' for name in known if now.get(name) != known[name]]
        known = now
    run_to_the_end(command, log)
    now = finished(folder)
    problems += [f'step {name} was run again' for name in known if now.get(name) != known[name]]
    return done, problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=10)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--folder', type=Path, required=True, help='is made, and must not exist')
    parser.add_argument(
        '--longest', type=float, default=40.0, help='seconds of work before a kill, at most'
    )
    parser.add_argument('--undisturbed', type=Path, help='folder "whole" of an earlier call')
    args = parser.parse_args()
    args.folder.mkdir()
    rng = random.Random(args.seed)
    whole = (args.undisturbed or args.folder / 'whole').absolute()
    if not args.undisturbed:
        whole.mkdir()
        seconds = run_to_the_end(command_of(whole), whole / 'log.txt')
        print(f'undisturbed: {seconds:.0f} s', flush=True)
    expected, total, problems, runs = final_state(whole), 0, [], Counter()
    while total < args.kills:
        folder = args.folder.absolute() / f'killed_{len(runs)}'
        folder.mkdir()
        done, found = kill_until_it_ends(
            folder,
            command_of(folder),
            args.kills - total,
            args.longest,
            rng,
            lambda line: print(line, flush=True),
        )
        found += differences(expected, final_state(folder))
        total += done
        runs[folder.name] = done
        print(f'{folder.name}: {done} kills, {len(found)} problems', *found, sep='\n', flush=True)
        problems += found
    print(f'{total} kills in {len(runs)} runs, {len(problems)} problems')
    if problems:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
