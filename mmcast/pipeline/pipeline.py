"""Ordered steps on one command: skip finished ones, resume an interrupted one, refuse changed ones.

``plan.py`` says what is to be done, ``steps.py`` does it, ``state.py`` keeps what was done.
"""

import contextlib
import gc
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config

from mmcast.errors import CASTError
from mmcast.files import move_aside
from mmcast.locks import hold_lock
from mmcast.memory import PeakMemory
from mmcast.pipeline.fingerprints import Fingerprint
from mmcast.pipeline.plan import Plan
from mmcast.pipeline.state import PipelineState
from mmcast.pipeline.steps import ONE_PROCESS, Step, StepResult, has_progress, run_step
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

    def resolve(self, value: Any, user: str) -> Any:
        """``value`` with its templates replaced, see :meth:`Plan.resolve`."""
        return self.plan.resolve(value, user, self.state)

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
    """Runs the steps of a pipeline config in order; every rank of a distributed run calls it, rank
    0 decides.

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
    chosen = [step] if isinstance(step, str) else list(step or [])
    with contextlib.ExitStack() as stack:
        pipeline = on_main(
            lambda: stack.enter_context(
                open_pipeline(
                    Plan(config_path, work_dir, cfg_options, seed, amp), chosen, list(rerun)
                )
            )
        )
        names = on_main(lambda: list(pipeline.plan.definitions), share=True)
        started = time.time()
        for name in names:
            ready = on_main(
                lambda name=name: pipeline.make_ready(name, time.time() - started), share=True
            )
            if ready is not None:
                _run_one(pipeline, ready, launcher)
    return pipeline and PipelineRun(pipeline.plan, pipeline.state)


def _run_one(pipeline: 'Pipeline | None', step: Step, launcher: str) -> None:
    """Runs a step and records what it gave; ``pipeline`` is None on all ranks but the first."""
    begin = time.time()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with PeakMemory() as memory:
        if step.kind in ONE_PROCESS:
            result = on_main(lambda: run_step(step, launcher))
        else:
            result = run_step(step, launcher)
    on_main(lambda: pipeline.finish(step, result, time.time() - begin, memory))
    # a Runner is full of cycles; else the next step starts beside the last one's model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def open_pipeline(plan: Plan, chosen: list[str], rerun: list[str]) -> Iterator['Pipeline']:
    """A pipeline whose work directory is locked for this process."""
    plan.check_names([*chosen, *(name for name in rerun if name != 'all')])
    with hold_work_dir(plan.work_dir):
        yield Pipeline(plan, PipelineState(plan.work_dir, plan.path), chosen, rerun)


def hold_work_dir(work_dir: Path) -> contextlib.AbstractContextManager[None]:
    """Locks a work directory, which is made if need be.

    Raises:
        CASTError: another process holds it.
    """
    return hold_lock(
        work_dir / '.lock',
        f'{work_dir} is in use by another run (process {{owner}}); wait until it ends, or choose '
        'another --work-dir',
    )


class Pipeline:
    """What rank 0 knows: the plan, the state, and what is to be done.

    Args:
        plan: the config.
        state: what was done before.
        chosen: names of the steps to run; empty for all.
        rerun: names of the steps to run again, or ['all'].

    Raises:
        CASTError: a finished step changed since it ran.
    """

    def __init__(
        self, plan: Plan, state: PipelineState, chosen: list[str], rerun: list[str]
    ) -> None:
        self.plan, self.state = plan, state
        self.rerun = set(plan.definitions if rerun == ['all'] else rerun)  # shrinks as they are run
        self.chosen = self.rerun.union(chosen) if chosen else set(plan.definitions)
        self._refuse_changed(
            [name for name in plan.definitions if name in self.chosen - self.rerun]
        )
        self._announce_rerun()

    def _step(self, name: str) -> Step:
        return self.plan.step(name, self._folder(name), self.state)

    def _folder(self, name: str) -> Path:
        """A step's directory; numbered by its place, a number it keeps when steps are put in before
        it.
        """
        number = list(self.plan.definitions).index(name) + 1
        return self.plan.work_dir / self.state.records.get(name, {}).get(
            'folder', f'{number:02d}_{name}'
        )

    def _fingerprint(self, step: Step) -> Fingerprint:
        config = None
        if step.config is not None:
            config = {
                key: value for key, value in step.config.to_dict().items() if key != 'work_dir'
            }
        return self.state.fingerprint(step.name, step.definition, config)

    def _changes(self, name: str) -> list[str]:
        """Why what a step left is not valid any more; empty if it is, or if it left nothing."""
        record = self.state.records.get(name)
        if record is None or self.plan.needs(name) & self.rerun:
            return []
        step = self._step(name)
        if not self.state.finished(name) and not (step.folder.exists() and has_progress(step)):
            return []
        new = self._fingerprint(step)
        changes = []
        if new.digest != record['fingerprint']:
            changes = self.state.read_fingerprint(name).changes(new)
        outputs = self.state.outputs(name) if self.state.finished(name) else {}
        changes += [
            f'its output {path} is gone'
            for path in record.get('output_files', [])
            if path in outputs and not Path(outputs[path]).exists()
        ]
        return changes

    def _refuse_changed(self, names: list[str]) -> None:
        changed = {name: changes for name in names if (changes := self._changes(name))}
        if not changed:
            return
        details = '; '.join(
            f'step {name} ({", ".join(changes[:4])}'
            + (f' and {len(changes) - 4} more)' if len(changes) > 4 else ')')
            for name, changes in changed.items()
        ).replace('{work_dir}', str(self.plan.work_dir))
        raise CASTError(
            f'{self.plan.work_dir}: changed since they ran: {details}; run them again (the old '
            f'folders are kept) with --rerun {" ".join(changed)}, or choose another --work-dir'
        )

    def _announce_rerun(self) -> None:
        stale = set(self.rerun)
        for (
            name
        ) in self.plan.definitions:  # in order, so that what depends on a dependent is found too
            if self.plan.needs(name) & stale and self.state.finished(name):
                stale.add(name)
        followers = [name for name in self.plan.definitions if name in stale - self.rerun]
        if followers:
            say(
                'steps that will be refused if the new results differ, unless named after '
                f'--rerun: {" ".join(followers)}'
            )

    def make_ready(self, name: str, elapsed: float) -> Step | None:
        """Makes folder and record of a step; None where there is nothing to do."""
        names = list(self.plan.definitions)
        number = f'step {names.index(name) + 1}/{len(names)} {name}'
        if name not in self.chosen:
            return None
        if name in self.rerun:
            self.rerun.remove(name)
            self._forget(name)
        self._refuse_changed([name])
        if self.state.finished(name):
            say(f'=== {number}: finished before, skipped')
            return None
        step = self._step(name)
        resumed = name in self.state.records and step.folder.exists() and has_progress(step)
        if step.folder.exists() and name not in self.state.records:
            self._forget(name)
        self._start(step, resumed)
        say(
            f'=== {number} ({step.kind}){" resumes" if resumed else ""}: {elapsed / 60:.1f} min '
            'so far' + self._time_left(name)
        )
        return step

    def _start(self, step: Step, resumed: bool) -> None:
        step.folder.mkdir(exist_ok=True)
        self.state.records[step.name] = dict(
            status='started', folder=step.folder.name, resumed=resumed
        )
        self.state.write_fingerprint(step.name, self._fingerprint(step))
        self.state.save()

    def _forget(self, name: str) -> None:
        """Moves the folder of a step that is to run again aside, and drops its record."""
        folder = self._folder(name)
        self.state.records.pop(name, None)
        backup = move_aside(folder)
        if backup:
            say(f'{folder} is kept as {backup}')
        self.state.save()

    def _time_left(self, name: str) -> str:
        """A rough guess: the remaining training iterations at the mean speed so far."""
        names = list(self.plan.definitions)
        done = [self.state.records[other] for other in names if self.state.finished(other)]
        iterations = sum(record['iterations'] for record in done)
        left = sum(
            self.plan.iterations(other)
            for other in names[names.index(name) :]
            if other in self.chosen and not self.state.finished(other)
        )
        if not iterations or not left:
            return ''
        seconds = sum(record['seconds'] for record in done if record['iterations'])
        return f', about {left * seconds / iterations / 60:.1f} min left'

    def finish(self, step: Step, result: StepResult, seconds: float, memory: PeakMemory) -> None:
        """Writes down what a step gave."""
        files = [
            key
            for key, value in result.outputs.items()
            if isinstance(value, str) and Path(value).exists()
        ]
        self.state.records[step.name].update(
            status='finished',
            outputs=self.state.portable(result.outputs),
            output_files=files,
            metrics=result.metrics,
            parameters=result.parameters,
            seconds=seconds,
            iterations=self.plan.iterations(step.name),
            peak_memory_mb=_peak_memory_mb(memory),
            versions=_versions(),
        )
        self.state.drop_own_outputs(step.name)
        self.state.save()


def _peak_memory_mb(memory: PeakMemory) -> dict[str, int]:
    """Largest resident memory of the process during the step, and largest GPU memory."""
    peak = dict(process=memory.megabytes)
    if torch.cuda.is_available():
        peak['gpu'] = torch.cuda.max_memory_allocated() // 2**20
    return peak


def _versions() -> dict[str, str]:
    return dict(mmcast=__version__, mmengine=mmengine.__version__, torch=str(torch.__version__))
