"""Runs the steps that tables need, one process for each run, and says how far it is."""

from __future__ import annotations

import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from mmcast.errors import CASTError
from mmcast.locks import hold_lock
from mmcast.pipeline.pipeline import PipelineRun
from mmcast.pipeline.plan import Plan
from mmcast.pipeline.state import PipelineState
from mmcast.typed_values import Typed

INTERVAL = 1.0  # seconds between two looks at the processes
MISSING, STARTED, FINISHED = 'missing', 'interrupted', 'finished'
CHANGED, OUTDATED = 'changed since it ran', 'made from what has changed'
WAITING = 'made from what was to run again'  # and was interrupted, so that nobody knows


@dataclass
class Run:
    """A pipeline with one seed, in a work directory of its own.

    Attributes:
        name: for messages.
        config: of the pipeline.
        work_dir: where it writes; its log is next to it.
        seed: of the split and of all random numbers.
        options: of the pipeline, dotted key -> value as typed.
        wanted: names of the steps that the table reads; None: all.
        failed: step -> why there is no result, see :meth:`work`.
    """

    name: str
    config: Path
    work_dir: Path
    seed: int
    options: Mapping[str, str] = field(default_factory=dict)
    wanted: Collection[str] | None = None
    failed: dict[str, str] = field(default_factory=dict)
    _exit_status: int = 0

    def __post_init__(self) -> None:
        typed = {key: Typed(value) for key, value in self.options.items()}
        self.plan = Plan(self.config, self.work_dir, typed, self.seed)
        self.steps = self._needed()
        self.log = self.work_dir.with_name(f'{self.work_dir.name}.log')
        self.status: dict[str, str] = {}
        self.look()

    def _needed(self) -> list[str]:
        """The wanted steps and all that they need, in the order in which they run."""
        needed = set(self.plan.definitions if self.wanted is None else self.wanted)
        self.plan.check_names(sorted(needed))
        for name in reversed(self.plan.definitions):
            if name in needed:
                needed |= self.plan.needs(name)
        return [name for name in self.plan.definitions if name in needed]

    def look(self) -> None:
        """Reads what there is: a ``status`` for each needed step."""
        self.state = PipelineState(self.work_dir, self.plan.path)
        self.status, self.reasons = {}, {}
        there = PipelineRun(self.plan, self.state)
        for name in self.steps:
            used = [self.status[other] for other in self.plan.needs(name)]
            if name not in self.state.records:
                self.status[name] = MISSING
            elif any(status in (CHANGED, OUTDATED) for status in used):
                self.status[name] = OUTDATED
            elif any(status != FINISHED for status in used):
                self.status[name] = WAITING
            elif changes := there.changed([name]).get(name):
                self.status[name], self.reasons[name] = CHANGED, '; '.join(changes[:3])
            else:
                self.status[name] = FINISHED if self.state.finished(name) else STARTED

    @property
    def due(self) -> list[str]:
        """The steps that are to run."""
        return [
            name for name in self.steps if self.status[name] != FINISHED and name not in self.failed
        ]

    def command(self, steps: Sequence[str], rerun: Sequence[str] = ()) -> list[str]:
        """The arguments of ``mmcast`` that run some steps."""
        options = [f'{key}={value}' for key, value in self.options.items()]
        return [
            *('train', str(self.config), '--work-dir', str(self.work_dir)),
            *('--seed', str(self.seed)),
            *(['--step', *steps] if steps else []),
            *(['--rerun', *rerun] if rerun else []),
            *(['--cfg-options', *options] if options else []),
        ]

    def work(self, rerun_changed: bool = False) -> Iterator[tuple[list[str], Path]]:
        """Yields arguments of ``mmcast``, one set after the other, until nothing is due; is told
        the exit status of each by :meth:`ended`.

        A step that fails takes those that need it with it, and no other.

        Args:
            rerun_changed: run steps again whose settings or inputs changed; else they fail.
        """
        in_use = f'{self.work_dir} is in use by another table (process {{owner}})'
        try:
            with hold_lock(self.work_dir.with_name(f'{self.work_dir.name}.lock'), in_use):
                yield from self._work(rerun_changed)
        except CASTError as error:
            for name in self.due:
                self.failed[name] = f'was not run: {error}'

    def _work(self, rerun_changed: bool) -> Iterator[tuple[list[str], Path]]:
        while True:
            self.look()
            changed = self._changed()
            if not rerun_changed:
                for name, reason in self.reasons.items():
                    self._fail(name, f'{CHANGED} ({reason}); --rerun-changed runs it again')
            waiting = {name for name, status in self.status.items() if status == WAITING}
            waiting |= self.plan.dependents(waiting)
            due = [name for name in self.due if name not in waiting]
            if not due and not self._lacks_report():
                return
            rerun = [name for name in changed if name in due]
            yield self.command(due, rerun), self.log
            self.look()
            left = [name for name in due if self.status[name] != FINISHED]
            found = rerun_changed and set(left[:1]) & set(self._changed()) - set(rerun)
            if left and not found:
                self._fail(left[0], f'failed with status {self._exit_status}, see {self.log}')
            elif not due and self._lacks_report():
                self.failed['report'] = f'failed with status {self._exit_status}, see {self.log}'

    def _lacks_report(self) -> bool:
        """Whether a whole pipeline was killed after its last step."""
        done = self.wanted is None and not self.failed
        return done and not (self.work_dir / 'report.html').exists()

    def _changed(self) -> list[str]:
        """The steps whose results do not count any more."""
        return [name for name in self.steps if self.status[name] in (CHANGED, OUTDATED)]

    def ended(self, status: int) -> None:
        """Tells :meth:`work` how its latest command ended."""
        self._exit_status = status

    def _fail(self, name: str, why: str) -> None:
        self.failed[name] = why
        for other in self.plan.dependents({name}) & set(self.steps):
            self.failed.setdefault(other, f'needs {name}')


def start(arguments: Sequence[str], log: Path, threads: int | None) -> subprocess.Popen:
    """Starts ``mmcast`` with its output at the end of a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, '-m', 'mmcast', *arguments]
    environment = dict(os.environ)
    if threads:
        environment.setdefault('OMP_NUM_THREADS', str(threads))
    with log.open('a', encoding='utf-8') as file:
        _head(file, arguments)
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)


def _head(file: IO[str], arguments: Sequence[str]) -> None:
    file.write(f'{time.strftime("%Y-%m-%d %H:%M:%S")} mmcast {shlex.join(arguments)}\n')
    file.flush()


def run_all(runs: Sequence[Run], jobs: int = 1, rerun_changed: bool = False) -> None:
    """Runs what is due, ``jobs`` runs at a time; an interruption, or SIGTERM, ends the processes.

    Args:
        runs: each in a work directory of its own.
        jobs: how many at a time; with several, each has one thread.
        rerun_changed: run steps again whose settings or inputs changed; else they fail.
    """
    progress = Progress(runs, jobs)
    waiting = [(run, run.work(rerun_changed)) for run in runs]
    active: list[tuple[Run, Iterator, subprocess.Popen]] = []
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                _advance(*waiting.pop(0), active, jobs)
            for item in [item for item in active if item[2].poll() is not None]:
                active.remove(item)
                run, work, process = item
                run.ended(process.returncode)
                _advance(run, work, active, jobs)
            progress.say([run for run, *_ in active])
            if active:
                time.sleep(INTERVAL)
    finally:
        for *_, process in active:
            process.terminate()
        for *_, process in active:
            process.wait()
        signal.signal(signal.SIGTERM, before)
    progress.say([])


def _advance(run: Run, work: Iterator, active: list, jobs: int) -> None:
    """Starts the next process of a run, if there is one."""
    command = next(work, None)
    if command is not None:
        active.append((run, work, start(*command, threads=1 if jobs > 1 else None)))


class Progress:
    """Prints a line for each step that ends, with the time at which all will have ended."""

    def __init__(self, runs: Sequence[Run], jobs: int) -> None:
        self.runs, self.jobs = runs, jobs
        self.started = time.time()
        self.seen = {(run.name, name) for run in runs for name in finished_steps(run)}
        self.total = sum(len(run.steps) for run in runs)
        self.files: dict[str, int] = {}

    def say(self, active: Sequence[Run]) -> None:
        """Looks at the records of the runs, where they were written anew."""
        for run in self.runs:
            if not self._is_new(run):
                continue
            run.state = PipelineState(run.work_dir, run.plan.path)
            for name in finished_steps(run):
                if (run.name, name) not in self.seen:
                    self.seen.add((run.name, name))
                    record = run.state.records[name]
                    left = f', {self.finish()}' if active else ''
                    print(
                        f'[{len(self.seen)}/{self.total}] {run.name} {name}: '
                        f'{figure(record["metrics"])}{record["seconds"] / 60:.1f} min{left}',
                        flush=True,
                    )

    def _is_new(self, run: Run) -> bool:
        path = run.work_dir / 'pipeline.json'
        time_ = path.stat().st_mtime_ns if path.exists() else 0
        if self.files.get(run.name) == time_:
            return False
        self.files[run.name] = time_
        return bool(time_)

    def finish(self) -> str:
        """When all will have ended: by the time that a step took in another run, else by that of
        a training iteration.
        """
        left = self.seconds_left()
        if left is None:
            return 'end not known yet'
        end = time.localtime(time.time() + left / self.jobs)
        return f'end about {time.strftime("%d %b %H:%M", end)}, in {left / self.jobs / 60:.0f} min'

    def seconds_left(self) -> float | None:
        """Of all steps that are not finished; None where no step tells."""
        known: dict[str, list[float]] = {}
        trained = [0.0, 0]
        for run in self.runs:
            for name in finished_steps(run):
                record = run.state.records[name]
                if record['resumed']:  # the seconds are of its last start
                    continue
                known.setdefault(name, []).append(record['seconds'])
                if record['iterations']:
                    trained[0] += record['seconds']
                    trained[1] += record['iterations']
        if not trained[1]:
            return None
        left = 0.0
        for run in self.runs:
            for name in run.steps:
                if (run.name, name) not in self.seen and name not in run.failed:
                    own = known.get(name)
                    pace = trained[0] / trained[1]
                    iterations = run.plan.iterations(name, run.state)
                    left += sum(own) / len(own) if own else iterations * pace
        return left


def reads_test_images(run: Run, step: str) -> bool:
    """Whether a step tests on other images than those of validation, as the data say."""
    definition = run.plan.definitions[step]
    if definition['kind'] != 'test':
        return False
    files = run.plan.files(definition, run.state)
    return files.get('test') not in (None, files.get('val'))


def finished_steps(run: Run) -> list[str]:
    return [name for name in run.steps if run.state.finished(name)]


def figure(metrics: Mapping[str, float]) -> str:
    """Mask AP in percent, for a line."""
    value = find_metric(metrics, 'segm_mAP')
    return '' if value is None else f'{100 * value:.1f} AP, '


def find_metric(metrics: Mapping[str, float], name: str) -> float | None:
    """A finite metric by its whole name, or by the part behind its prefix: then the first."""
    for key in [name, *(key for key in metrics if key.rpartition('/')[2] == name)]:
        if key in metrics:
            return metrics[key] if math.isfinite(metrics[key]) else None
    return None


def listing(runs: Sequence[Run]) -> list[str]:
    """What is there and what would run, a line for each run and one for each command."""
    lines = []
    for run in runs:
        by_status: dict[str, list[str]] = {}
        for name in run.steps:
            by_status.setdefault(run.status[name], []).append(name)
        lines.append(f'{run.name}: {run.work_dir}')
        for status, names in by_status.items():
            lines.append(f'    {status}: {" ".join(names)}')
        for name, reason in run.reasons.items():
            lines.append(f'    {name}: {reason}')
        if run.due:
            lines.append(f'    mmcast {shlex.join(run.command(run.due))}')
    return lines


def failures(runs: Sequence[Run]) -> list[str]:
    """A line for each step that has no result, and why."""
    return [f'{run.name}: step {name} {why}' for run in runs for name, why in run.failed.items()]
