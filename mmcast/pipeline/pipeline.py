"""Ordered steps on one command: skip finished ones, resume an interrupted one, refuse changed ones.

``plan.py`` says what is to be done, ``steps.py`` does it, ``state.py`` keeps what was done.
"""

import contextlib
import functools
import gc
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from mmengine.dist import get_world_size

from mmcast.devices import check_device
from mmcast.environment import source_commit
from mmcast.errors import CASTError
from mmcast.locks import hold_work_dir
from mmcast.memory import PeakMemory
from mmcast.pipeline.plan import Plan
from mmcast.pipeline.state import PipelineState
from mmcast.pipeline.steps import ONE_PROCESS, Step, StepResult, run_step
from mmcast.training.distributed import on_main, say, start_distributed
from mmcast.version import __version__


@dataclass
class PipelineRun:
    """What a pipeline left: its plan, and the record of every step."""

    plan: Plan
    state: PipelineState

    @property
    def unfinished(self) -> list[str]:
        """Names of the steps that are not finished."""
        return [name for name in self.plan.definitions if not self.state.finished(name)]

    @property
    def decisions(self) -> list[dict]:
        """Settings that finished steps chose and why: dicts with ``setting``, ``value``, ``why``,
        from the output ``decisions`` of a step.
        """
        left = (
            self.state.outputs(name) for name in self.plan.definitions if self.state.finished(name)
        )
        return [row for outputs in left for row in outputs.get('decisions', [])]

    def resolve(self, value: Any, user: str) -> Any:
        """``value`` with its templates replaced, see :meth:`Plan.resolve`."""
        return self.plan.templates.resolve(value, user, self.state)

    def changed(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Of steps that left something, those that are not valid any more, each with the reasons.

        Raises:
            CASTError: a step uses an output of one that is not finished.
        """
        changes = {
            name: self.state.changes(self.plan.step(name, self.state.folder(name), self.state))
            for name in self.plan.definitions
            if name in names and name in self.state.records
        }
        return {name: reasons for name, reasons in changes.items() if reasons}

    def definition(self, name: str) -> dict:
        """The settings of a finished step, templates resolved."""
        return self.plan.step(name, self.state.folder(name), self.state).definition

    def column_config(self, column: dict) -> Config:
        """The MMEngine config of a column of the report."""
        return self.plan.column_config(column, self.state)


def run_pipeline(
    config_path: str | os.PathLike,
    work_dir: str | os.PathLike | None = None,
    step: str | Sequence[str] | None = None,
    rerun: Sequence[str] = (),
    cfg_options: dict | None = None,
    launcher: str = 'none',
    seed: int | None = None,
    amp: bool = False,
) -> PipelineRun | None:
    """Runs the steps of a pipeline config in order; every rank of a distributed run calls it.

    Args:
        config_path: the pipeline config, see :class:`Plan`.
        work_dir: overrides the config's; default ``work_dirs/<config name>``.
        step: run only this step (or these); what they need must be finished.
        rerun: steps to run again although finished, or ``['all']``; their folders are moved aside.
        cfg_options: merged into the pipeline config.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi', as everywhere in OpenMMLab.
        seed: overrides the config's.
        amp: train with automatic mixed precision.

    Returns:
        What is there now, for the reports; None on all ranks but the first.

    Raises:
        CASTError: a mistake in the config, a changed step, a missing input, a work directory in use
            or of another pipeline.
    """
    start_distributed(launcher)
    plan = Plan(config_path, work_dir, cfg_options, seed, amp)
    plan.choose([step] if isinstance(step, str) else step or [], rerun)
    with contextlib.ExitStack() as stack:
        pipeline = on_main(lambda: stack.enter_context(open_pipeline(plan)))
        started = time.monotonic()
        for name in plan.definitions:
            due = functools.partial(_begin, pipeline, name, started)
            ready = on_main(due, share=True)
            if ready is not None:
                _run_one(pipeline, ready, launcher)
    return pipeline and PipelineRun(plan, pipeline.state)


def _begin(pipeline: 'Pipeline', name: str, started: float) -> Step | None:
    return pipeline.begin(name, time.monotonic() - started)


def _run_one(pipeline: 'Pipeline | None', step: Step, launcher: str) -> None:
    """Runs a step and records what it gave; ``pipeline`` is None on all ranks but the first."""
    begin, cpu = time.monotonic(), _cpu_seconds()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with PeakMemory() as memory:
        if step.kind in ONE_PROCESS:
            result = on_main(lambda: run_step(step, launcher))
        else:
            result = run_step(step, launcher)
    on_main(
        lambda: pipeline.finish(
            step, result, memory, seconds=time.monotonic() - begin, cpu_seconds=_cpu_seconds() - cpu
        )
    )
    gc.collect()  # a Runner is full of cycles; the last model would stay in memory
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def open_pipeline(plan: Plan) -> Iterator['Pipeline']:
    """A pipeline whose work directory is locked for this process."""
    with hold_work_dir(plan.work_dir):
        yield Pipeline(plan, PipelineState(plan.work_dir, plan.path))


class Pipeline:
    """What rank 0 knows: what is asked for, and what was done.

    Args:
        plan: the config, and which of its steps are chosen.
        state: the records.

    Raises:
        CASTError: a finished step changed since it ran.
    """

    def __init__(self, plan: Plan, state: PipelineState) -> None:
        self.plan, self.state = plan, state
        source_commit()  # of the code that is loaded now
        self.rerun = set(plan.rerun)  # shrinks as they are run
        for name in plan.chosen:
            check_device(plan.device(name))
        self._refuse_changed(self._known(plan.chosen - self.rerun))
        state.keep_students(plan.students())
        stale = plan.dependents(self.rerun)
        followers = [name for name in plan.definitions if name in stale and state.finished(name)]
        if followers:
            say(
                'steps that will be refused if the new results differ, unless named after '
                f'--rerun: {" ".join(followers)}'
            )

    def _known(self, names: Iterable[str]) -> list[str]:
        """Those of some steps whose inputs are there. The others use a step that is not finished,
        as after an interrupted ``--rerun`` or in a later version; they are compared when it is.
        """
        unfinished = {name for name in self.plan.definitions if not self.state.finished(name)}
        return [name for name in names if not self.plan.needs(name) & unfinished]

    def _step(self, name: str) -> Step:
        folder = self.state.folder(name, self.plan.number(name))
        return self.plan.step(name, folder, self.state)

    def _refuse_changed(self, names: Iterable[str]) -> None:
        """Raises CASTError where what steps left is not valid any more."""
        kept = [name for name in names if not self.plan.needs(name) & self.rerun]
        changed = PipelineRun(self.plan, self.state).changed(kept)
        if not changed:
            return
        details = '; '.join(f'step {name} ({_list(changes)})' for name, changes in changed.items())
        details = details.replace('{work_dir}', str(self.plan.work_dir))
        details = details.replace('{config_dir}', str(self.plan.path.parent))
        raise CASTError(
            f'{self.plan.work_dir}: changed since they ran: {details}; run them again (the old '
            f'folders are kept) with --rerun {" ".join(changed)}, or choose another --work-dir'
        )

    def begin(self, name: str, elapsed: float) -> Step | None:
        """Makes folder and record of a step; None where there is nothing to do."""
        if name not in self.plan.chosen:
            return None
        self._check_outputs()
        title = f'step {self.plan.number(name)}/{len(self.plan.definitions)} {name}'
        if name in self.rerun:
            self.rerun.remove(name)
            self._forget(name)
        self._refuse_changed([name])
        if self.state.finished(name):
            say(f'=== {title}: finished before, skipped')
            return None
        if name not in self.state.records:
            self._forget(name)  # what lies there is of another run
        step = self._step(name)
        resumed = ' resumes' if self.state.begin(step) else ''
        say(f'=== {title} ({step.kind}){resumed}: {elapsed / 60:.1f} min so far' + self._left(name))
        return step

    def _check_outputs(self) -> None:
        """Raises CASTError where what finished steps left does not do for the steps to come. What
        runs again does not count: it may be what a person changed after such an error.
        """
        state = self.state.without(self.rerun)
        due = [name for name in self.plan.chosen if not state.finished(name)]
        self.plan.check_outputs(due, state)
        self.plan.check_batches(due, state, get_world_size())

    def _forget(self, name: str) -> None:
        folder = self.state.folder(name, self.plan.number(name))
        for path, backup in self.state.forget(name, folder).items():
            say(f'{path} is kept as {backup}')

    def _left(self, name: str) -> str:
        """A guess: the remaining training iterations at the mean speed of the steps done so far.

        Not of resumed ones: their seconds are of the last start, which did not train all of their
        iterations.
        """
        done = [
            self.state.records[other]
            for other in self.plan.definitions
            if self.state.finished(other) and not self.state.records[other]['resumed']
        ]
        iterations = sum(record['iterations'] for record in done)
        left = sum(
            self.plan.iterations(other, self.state)
            for other in self.plan.chosen
            if self.plan.number(other) >= self.plan.number(name) and not self.state.finished(other)
        )
        if not iterations or not left:
            return ''
        seconds = sum(record['seconds'] for record in done if record['iterations'])
        return f', about {left * seconds / iterations / 60:.1f} min left'

    def finish(self, step: Step, result: StepResult, memory: PeakMemory, **seconds: float) -> None:
        """Writes down what a step gave, and the ``seconds`` that its last start took."""
        self.state.finish(
            step.name,
            result,
            **seconds,
            iterations=self.plan.iterations(step.name, self.state),
            peak_memory_mb=_peak_memory_mb(memory),
            versions=_versions(),
        )
        self._check_outputs()  # now, as the next step may be asked for much later


def _list(changes: list[str]) -> str:
    more = f' and {len(changes) - 4} more' if len(changes) > 4 else ''
    return ', '.join(changes[:4]) + more


def _peak_memory_mb(memory: PeakMemory) -> dict[str, int]:
    """Largest resident memory of the process during the step, and largest GPU memory."""
    peak = dict(process=memory.megabytes)
    if torch.cuda.is_available():
        peak['gpu'] = torch.cuda.max_memory_allocated() // 2**20
    return peak


def _cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended, loaders among them."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _versions() -> dict[str, str | None]:
    return dict(
        mmcast=__version__,
        commit=source_commit(),
        mmengine=mmengine.__version__,
        torch=str(torch.__version__),
    )
