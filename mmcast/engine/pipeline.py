"""Ordered steps on one command: skip finished ones, resume an interrupted one, refuse changed ones.

See ``run_pipeline`` for the config. ``state.py`` keeps what was done, ``steps.py`` does it.
"""
import contextlib
import gc
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config

import mmcast
from mmcast.errors import CASTError
from .distributed import on_main, start_distributed
from .runs import say
from .state import Fingerprint, PipelineState, lock
from .steps import (ONE_PROCESS, Step, StepResult, check_definition, has_progress, load_config, run_step,
                    step_config)
from .summary import summary_rows, write_summary
from .templates import names_in, resolve


def run_pipeline(config_path: str | Path,
                 work_dir: str | Path | None = None,
                 step: str | Sequence[str] | None = None,
                 rerun: Sequence[str] = (),
                 cfg_options: dict | None = None,
                 launcher: str = 'none',
                 seed: int | None = None,
                 amp: bool = False) -> None:
    """Runs the steps of a pipeline config in order and ends with a summary table and a report.

    The config has ``steps`` (a list of dicts with ``name``, ``kind`` and what ``steps.py`` says the kind
    takes) and may have ``work_dir``, ``seed``, ``variables``, ``step_options`` (merged into the config of
    every step), ``summary`` and ``report``. Strings may hold ``{variable}``, ``{work_dir}``, ``{seed}``,
    ``{config_dir}`` (the folder of the pipeline config) and ``{step.output}``. Every rank of a distributed
    run calls this; rank 0 decides and writes.

    Args:
        config_path: the pipeline config.
        work_dir: overrides the config's; default ``work_dirs/<config name>``.
        step: run only this step (or these); what they need must be finished.
        rerun: steps to run again although finished, or ``['all']``; their folders are moved aside.
        cfg_options: merged into the pipeline config.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi', as everywhere in OpenMMLab.
        seed: overrides the config's.
        amp: train with automatic mixed precision.

    Raises:
        CASTError: a mistake in the config, a changed step, a missing input, a work directory in use or of
            another pipeline.
    """
    start_distributed(launcher)
    config = load_config(Path(config_path))
    config.merge_from_dict(cfg_options or {})
    if seed is not None:
        config.seed = seed
    config.work_dir = str(work_dir or config.get('work_dir') or Path('work_dirs', Path(config_path).stem))
    chosen = [step] if isinstance(step, str) else list(step or [])
    with contextlib.ExitStack() as stack:
        pipeline = on_main(lambda: Pipeline(config, Path(config_path), chosen, list(rerun), amp, stack))
        _run_steps(pipeline, config, launcher)
        on_main(lambda: pipeline.close())


def _run_steps(pipeline: 'Pipeline | None', config: Config, launcher: str) -> None:
    """The loop over the steps; ``pipeline`` is None on all ranks but the first."""
    started = time.time()
    for definition in config.steps:
        step = on_main(lambda: pipeline.prepare(definition['name'], time.time() - started), share=True)
        if step is None:
            continue
        begin = time.time()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if step.kind in ONE_PROCESS:
            result = on_main(lambda: run_step(step, launcher))
        else:
            result = run_step(step, launcher)
        on_main(lambda: pipeline.finish(step, result, time.time() - begin))
        gc.collect()  # a Runner is full of cycles; else the next step starts beside the last one's model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class Pipeline:
    """What rank 0 knows: the config, the state, and what is to be done.

    Args:
        config: the pipeline config with ``work_dir``.
        path: its file.
        chosen: names of the steps to run; empty for all.
        rerun: names of the steps to run again, or ['all'].
        amp: see ``run_pipeline``.
        stack: keeps the work directory locked until it is closed.
    """

    def __init__(self, config: Config, path: Path, chosen: list[str], rerun: list[str], amp: bool,
                 stack: contextlib.ExitStack) -> None:
        self.config, self.path, self.amp = config, path, amp
        self.definitions = {step.get('name'): step for step in config.steps}
        self._check_config(chosen, rerun)
        self.work_dir = Path(config.work_dir)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        stack.enter_context(lock(self.work_dir))
        self.state = PipelineState(self.work_dir, path)
        self.rerun = set(self.definitions if rerun == ['all'] else rerun)  # shrinks as they are run
        self.chosen = self.rerun.union(chosen) if chosen else set(self.definitions)
        self.variables = self._resolve_variables()
        self.step_options = self.resolve(dict(config.get('step_options', {})), 'step_options')
        self._refuse_changed([name for name in self.definitions if name in self.chosen - self.rerun])
        self._announce_rerun()

    def _check_config(self, chosen: list[str], rerun: list[str]) -> None:
        for step in self.config.steps:
            check_definition(step)
            if step.kind != 'call':
                load_config(self.path.parent / step.config)  # rather now than after hours
        names = [step.name for step in self.config.steps]
        if len(set(names)) < len(names):
            raise CASTError(f'{self.path} has two steps of one name; names are {", ".join(names)}')
        rows = [row['step'] for row in self.config.get('summary', [])]
        for name in chosen + [name for name in rerun if name != 'all'] + rows:
            if name not in names:
                raise CASTError(f'{self.path} has no step {name}; it has {", ".join(names)}')

    def _resolve_variables(self) -> dict[str, Any]:
        variables = dict(work_dir=str(self.work_dir), seed=self.config.get('seed'),
                         config_dir=str(self.path.parent))
        for key, value in self.config.get('variables', {}).items():
            variables[key] = resolve(value, lambda name: self._lookup(name, variables, 'variables'))
        return variables

    def _lookup(self, name: str, variables: dict[str, Any], user: str) -> Any:
        """The value of a template; ``user`` is who needs it, for the message."""
        if name in variables:
            return variables[name]
        step, _, output = name.partition('.')
        if step not in self.definitions or not output:
            known = ', '.join([*variables, *(f'{step}.<output>' for step in self.definitions)])
            raise CASTError(f'{self.path}: {user} uses {{{name}}}, which is not known; known are {known}')
        if not self.state.finished(step):
            raise CASTError(
                f'{user} needs {{{name}}}, but step {step} is not finished; run it first: --step {step}')
        outputs = self.state.outputs(step)
        if output not in outputs:
            raise CASTError(
                f'{user} uses {{{name}}}, but step {step} gave only {", ".join(outputs) or "nothing"}')
        return outputs[output]

    def resolve(self, value: Any, user: str) -> Any:
        """``value`` with its templates replaced; raises CASTError for an unknown or unfinished one."""
        return resolve(value, lambda name: self._lookup(name, self.variables, user))

    def _step(self, name: str) -> Step:
        definition = self.resolve(self.definitions[name].to_dict(), f'step {name}')
        config = step_config(definition, self.path.parent, self.step_options, self.config.get('seed'),
                             self.amp)
        return Step(name, definition, self._folder(name), config)

    def _folder(self, name: str) -> Path:
        """A step's directory; numbered by its place, a number it keeps when steps are put in before it."""
        number = list(self.definitions).index(name) + 1
        return self.work_dir / self.state.records.get(name, {}).get('folder', f'{number:02d}_{name}')

    def _fingerprint(self, step: Step) -> Fingerprint:
        config = None
        if step.config is not None:
            config = {key: value for key, value in step.config.to_dict().items() if key != 'work_dir'}
        return self.state.fingerprint(step.name, step.definition, config)

    def _changes(self, name: str) -> list[str]:
        """Why what a step left is not valid any more; empty if it is, or if it left nothing."""
        record = self.state.records.get(name)
        if record is None or self._needs(name) & self.rerun:
            return []
        step = self._step(name)
        if not self.state.finished(name) and not (step.folder.exists() and has_progress(step)):
            return []
        new = self._fingerprint(step)
        changes = []
        if new.digest != record['fingerprint']:
            changes = self.state.read_fingerprint(name).changes(new)
        outputs = self.state.outputs(name) if self.state.finished(name) else {}
        changes += [f'its output {path} is gone' for path in record.get('output_files', [])
                    if path in outputs and not Path(outputs[path]).exists()]
        return changes

    def _needs(self, name: str) -> set[str]:
        """Names of the steps whose outputs a step uses."""
        used = names_in(self.definitions[name].to_dict())
        return {name.split('.')[0] for name in used} & self.definitions.keys()

    def _refuse_changed(self, names: list[str]) -> None:
        changed = {name: changes for name in names if (changes := self._changes(name))}
        if not changed:
            return
        details = '; '.join(f'step {name} ({", ".join(changes[:4])}'
                            + (f' and {len(changes) - 4} more)' if len(changes) > 4 else ')')
                            for name, changes in changed.items()).replace('{work_dir}', str(self.work_dir))
        raise CASTError(
            f'{self.work_dir}: changed since they ran: {details}; run them again (the old folders are kept) '
            f'with --rerun {" ".join(changed)}, or choose another --work-dir')

    def _announce_rerun(self) -> None:
        stale = set(self.rerun)
        for name in self.definitions:  # in order, so that what depends on a dependent is found too
            if self._needs(name) & stale and self.state.finished(name):
                stale.add(name)
        followers = [name for name in self.definitions if name in stale - self.rerun]
        if followers:
            say(f'steps that will be refused if the new results differ, unless named after --rerun: '
                f'{" ".join(followers)}')

    def prepare(self, name: str, elapsed: float) -> Step | None:
        """Makes ready to run a step: folder and record; None where there is nothing to do."""
        number = f'step {list(self.definitions).index(name) + 1}/{len(self.definitions)} {name}'
        if name not in self.chosen:
            return None
        if name in self.rerun:
            self.rerun.remove(name)
            self._move_aside(name)
        self._refuse_changed([name])
        if self.state.finished(name):
            say(f'=== {number}: finished before, skipped')
            return None
        step = self._step(name)
        resumed = name in self.state.records and step.folder.exists() and has_progress(step)
        if step.folder.exists() and name not in self.state.records:
            self._move_aside(name)
        self._start(step, resumed)
        say(f'=== {number} ({step.kind}){" resumes" if resumed else ""}: {elapsed / 60:.1f} min so far'
            + self._time_left(name))
        return step

    def _start(self, step: Step, resumed: bool) -> None:
        step.folder.mkdir(exist_ok=True)
        self.state.records[step.name] = dict(status='started', folder=step.folder.name, resumed=resumed)
        self.state.write_fingerprint(step.name, self._fingerprint(step))
        self.state.save()

    def _move_aside(self, name: str) -> None:
        """Keeps the folder of a step that is to run again as ``<folder>.old<n>`` and forgets its record."""
        folder = self._folder(name)
        self.state.records.pop(name, None)
        if folder.exists():
            number = 1
            while (backup := folder.with_name(f'{folder.name}.old{number}')).exists():
                number += 1
            folder.rename(backup)
            say(f'{folder} is kept as {backup}')
        self.state.save()

    def _time_left(self, name: str) -> str:
        """A rough guess: the remaining training iterations at the mean speed of those done so far."""
        names = list(self.definitions)
        done = [self.state.records[other] for other in names if self.state.finished(other)]
        iterations = sum(record['iterations'] for record in done)
        left = sum(self._iterations(other) for other in names[names.index(name):]
                   if other in self.chosen and not self.state.finished(other))
        if not iterations or not left:
            return ''
        seconds = sum(record['seconds'] for record in done if record['iterations'])
        return f', about {left * seconds / iterations / 60:.1f} min left'

    def _iterations(self, name: str) -> int:
        definition = self.definitions[name]
        if definition.kind != 'train':
            return 0
        config = load_config(self.path.parent / definition.config)
        for options in (self.config.get('step_options', {}), definition.get('cfg_options', {})):
            config.merge_from_dict({key: options[key] for key in options if key.startswith('train_cfg')})
        return int(config.train_cfg.get('max_iters', 0))

    def finish(self, step: Step, result: StepResult, seconds: float) -> None:
        """Writes down what a step gave."""
        files = [key for key, value in result.outputs.items()
                 if isinstance(value, str) and Path(value).exists()]
        self.state.records[step.name].update(
            status='finished', outputs=self.state.portable(result.outputs), output_files=files,
            metrics=result.metrics, parameters=result.parameters, seconds=seconds,
            iterations=self._iterations(step.name), peak_memory_mb=_peak_memory_mb(), versions=_versions())
        self.state.drop_own_outputs(step.name)
        self.state.save()

    def close(self) -> None:
        """The summary table and, once every step is finished, the report and the exported student."""
        rows = summary_rows(self.state, self.config.get('summary', []))
        if rows:
            say(write_summary(self.work_dir, rows))
        missing = [name for name in self.definitions if not self.state.finished(name)]
        if missing:
            say(f'not finished: {" ".join(missing)}; the report is written when all steps are')
            return
        from .report import write_report  # matplotlib is not needed until here
        say(f'report: {write_report(self, rows)}')
        from mmcast.deploy.model_card import write_student  # it imports the engine
        try:
            folder = write_student(self, rows)
            if folder:
                say(f'student and model card: {folder}')
        except CASTError as error:  # the results are there all the same
            say(f'warning: no student was exported: {error}')


def _peak_memory_mb() -> dict[str, int]:
    """Largest resident memory of the process up to now, and largest GPU memory of the step."""
    memory = dict(process=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    if torch.cuda.is_available():
        memory['gpu'] = torch.cuda.max_memory_allocated() // 2**20
    return memory


def _versions() -> dict[str, str]:
    return dict(mmcast=mmcast.__version__, mmengine=mmengine.__version__, torch=str(torch.__version__))
