"""What a pipeline config asks for: steps in their order, each with its settings once their values
are known.
"""

import contextlib
import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmcast.configs import find_config, load_bases, load_config, shipped_configs
from mmcast.data.config_data import (
    labeled_data,
    pseudo_labeled_data,
    set_config_data,
    transforms_of,
    unlabeled_images,
)
from mmcast.data.mixing import build_mixing, merge_mixing
from mmcast.errors import CASTError
from mmcast.pipeline.held_out import number_of_folds, reading_options, shortened
from mmcast.pipeline.named_steps import (
    DEFAULTS,
    Disabled,
    completed,
    folds_of,
    loads_of,
    names_of,
    parts_of,
    steps_that_are_off,
    take_out_disabled,
    views_of,
)
from mmcast.pipeline.settings import (
    PIPELINE_KEYS,
    check_arguments,
    check_choices,
    check_output,
    check_sections,
    check_sizes,
    check_step,
    merge_options,
)
from mmcast.pipeline.state import PipelineState, flatten
from mmcast.pipeline.steps import Step
from mmcast.spelling import hint, nearest
from mmcast.training.batches import check_batch_sizes, merge_run_options
from mmcast.training.overrides import Finding, check_names_of_run, find_unknown, nested, refuse
from mmcast.training.runner import use_amp
from mmcast.typed_values import TEMPLATE


class Plan:
    """A pipeline config that was checked as far as it can be before anything runs.

    The config has ``steps`` (dicts by name, or a list of dicts with ``name``; ``steps.py`` says
    what each kind takes) and may have ``work_dir``, ``seed``, ``variables``, ``choices`` (the
    values that some variables may take), ``datasets`` (see ``set_config_data``), ``mixing`` (of the
    pseudo-labeled images of every training step), ``step_options`` (merged into the config of every
    step), ``summary``, ``report`` and ``model_card``; other names are its own. A step that is None
    does not exist, nor does one whose ``enabled`` is False: others get the outputs of the step that
    its ``instead`` names. A dict's steps run in their order, but each behind those whose outputs it
    uses; ``after`` puts one behind another instead of at the end. A step's config is looked for
    next to the pipeline's, then among those shipped with mmcast. Strings may hold templates:
    ``{variable}``, ``{work_dir}``, ``{seed}``, ``{config_dir}`` (the folder of the pipeline
    config), ``{configs}`` (the configs shipped with mmcast), ``{step.output}`` and ``{step}``, all
    outputs of a step.

    Args:
        path: the pipeline config.
        work_dir: overrides the config's; default ``work_dirs/<config name>``.
        cfg_options: merged into the config.
        seed: overrides the config's.
        amp: train with automatic mixed precision.

    Attributes:
        config, path, work_dir: as given or found.
        definitions: the settings of each step by name, in order, templates unresolved.
        rows: of the summary table: dicts with ``row``, a title, and ``step``.
        chosen, rerun: names of the steps that are to run, and to run again, see :meth:`choose`.

    Raises:
        CASTError: a mistake in the config.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        work_dir: str | os.PathLike | None = None,
        cfg_options: dict | None = None,
        seed: int | None = None,
        amp: bool = False,
    ) -> None:
        self.path = find_config(path)
        self.config = load_config(self.path)
        used = self._templates()  # an option may replace the only use of a variable
        merge_options(self.config, cfg_options or {}, str(self.path))
        check_sections(self.config, str(self.path))
        check_choices(self.config, str(self.path))
        for key in PIPELINE_KEYS:  # None says that there is none
            if key in self.config and self.config[key] is None:
                self.config.pop(key)
        if not self.config.get('steps'):
            raise CASTError(f'{self.path} has no steps, so it is not a pipeline config')
        if seed is not None:
            self.config.seed = seed
        self.amp = amp
        self.work_dir = Path(
            work_dir or self.config.get('work_dir') or Path('work_dirs', self.path.stem)
        )
        self.definitions = order_steps(self.config.to_dict()['steps'])
        self._disabled: dict[str, Disabled] = {}
        self._disabled = take_out_disabled(
            self.definitions, self._dropped(), self._variables().keys(), self._filled_in
        )
        self._off = steps_that_are_off(self.definitions, self._dropped(), self._filled_in)
        for name in self._off:
            del self.definitions[name]
        if not self.definitions:
            raise CASTError(f'{self.path}: none of its steps would run')
        self._check_for_steps_that_run(cfg_options or {})
        for name, definition in self.definitions.items():
            check_step(name, definition, [other for other in self.definitions if other != name])
        for name, definition in self.definitions.items():
            if definition['kind'] in DEFAULTS:
                for idle in filter(None, map(self._why_idle, names_of(definition))):
                    raise CASTError(f'{self.path}: step {name} names a step, but {idle}')
                self.definitions[name] = completed(name, self.definitions)
        for name in self.definitions:
            self.needs(name)  # knows every name
        self._check_against_bases(used)
        if isinstance(self.config.steps, dict):
            self.definitions = self._in_order_of_need()
        # All configs are read now, rather than after hours.
        self._configs = {
            name: self._load(definition, f'step {name}')
            for name, definition in self.definitions.items()
            if definition['kind'] != 'call'
        }
        self._check_options()
        self._check_batch_sizes()
        self._check_transforms()
        self._check_mixing()
        self._check_held_out()
        for name, definition in self.definitions.items():
            check_arguments(name, self._filled_in(definition))
        self.rows = self._summary_rows()
        self._check_report()
        self.choose([], [])

    def _check_for_steps_that_run(self, cfg_options: dict) -> None:
        """Raises CASTError where an option of the command line is for a step that does not run."""
        for key in flatten(nested(cfg_options)):
            section, _, rest = key.partition('.')
            name, _, setting = rest.partition('.')
            idle = self._why_idle(name)
            if section == 'steps' and idle and setting not in ('enabled', 'instead', 'folds'):
                raise CASTError(f'{self.path}: {key} would do nothing: {idle}')

    def _why_idle(self, name: str) -> str | None:
        """That a step of the config does not run, and why; None of any other."""
        if name in self._disabled:
            return f'step {name} does not run, as {self._disabled[name].switch} is False'
        return f'step {name} does not run with these settings' if name in self._off else None

    def _check_held_out(self) -> None:
        """Raises CASTError where thresholds would be chosen for, or given to, a step that reads no
        pseudo-labels, or folds made of no labels.
        """
        for name, definition in self.definitions.items():
            if definition['kind'] == 'folds':
                for other in names_of(definition):
                    labeled_data(self._configs[other])
            elif definition['kind'] == 'thresholds':
                reading_options(self._configs[definition['used_by']])
            elif 'thresholds' in definition and not pseudo_labeled_data(self._configs[name]):
                raise CASTError(
                    f'{self.path}: step {name} has thresholds, but its config has no '
                    'PseudoLabelDataset'
                )

    def _check_against_bases(self, used: set[str]) -> None:
        """Raises CASTError for a variable that nothing uses, or a step to drop that there is not:
        names that a config misspells where it inherits another one.

        Args:
            used: the templates of the config's file.
        """
        bases = load_bases(self.path)
        if not bases:
            return
        known = [name for base in bases for name in base.get('variables') or {}]
        used = used | self._templates()
        for name in self.config.get('variables') or {}:
            if name not in known and name not in used:
                raise CASTError(
                    f'{self.path}: variables.{name} is used by nothing; {hint(name, known)}'
                )
        steps = [name for base in bases for name in base.get('steps') or {}]
        for name in self._dropped() - self._disabled.keys():
            if name not in steps:
                raise CASTError(
                    f'{self.path}: there is no step {name} to drop; {hint(name, steps)}'
                )

    def _templates(self, steps: dict[str, dict] | None = None) -> set[str]:
        """The names in all templates of the config that anything reads.

        Args:
            steps: in place of the config's.
        """
        found: set[str] = set()

        def note(name: str) -> str:
            found.add(name)
            return ''

        content = self.config.to_dict()
        if steps is not None:
            content['steps'] = steps
        resolve({key: content[key] for key in PIPELINE_KEYS if key in content}, note)
        return found

    def _fill_in(self, value: Any, other: Callable[[str, tuple[str, ...]], Any]) -> Any:
        """``value`` with the variables in it.

        Args:
            value: from the config.
            other: gives the value of a template that is no variable, or one inside itself; gets its
                name and those of the variables that it stands in, the innermost first.
        """
        variables = self._variables()

        def lookup(name: str, *inside: str) -> Any:
            if name not in variables or name in inside:
                return other(name, inside)
            return resolve(variables[name], lambda inner: lookup(inner, name, *inside))

        return resolve(value, lookup)

    def _filled_in(self, value: Any) -> Any:
        """``value`` with the variables in it, and templates of outputs as they are, but of the
        steps that stand in for others.
        """

        def output(name: str, _: tuple[str, ...]) -> str:
            step, dot, rest = name.partition('.')
            other = self._disabled.get(step)
            return f'{{{(other and other.instead) or step}{dot}{rest}}}'

        return self._fill_in(value, output)

    def _check_options(self) -> None:
        """Raises CASTError where options for the steps' configs would do nothing; names all.

        Those of several steps may be meant for one of them.
        """
        users: dict[str, tuple[dict, list[str]]] = {}
        shared = self._filled_in(self.config.to_dict().get('step_options') or {})
        for name in self._configs:
            options = self.definitions[name].get('cfg_options') or {}
            source = options if isinstance(options, str) else f'cfg_options of step {name}'
            for place, given in (('step_options', shared), (source, self._filled_in(options))):
                if isinstance(given, dict):
                    users.setdefault(place, (given, []))[1].append(name)
        for place, (given, names) in users.items():
            found = [find_unknown(self._configs[name], nested(given)) for name in names]
            unknown = set.intersection(*({item.key for item in items} for items in found))
            wrong = {
                item.key: Finding(item.key, f'{item.message} (step {name})')
                for name, items in zip(names[::-1], found[::-1])
                for item in items
                if item.breaks or item.key in unknown
            }
            refuse(f'{self.path}: {place}', wrong.values())

    def _check_batch_sizes(self) -> None:
        """Raises CASTError where a step would train on batches of one source alone."""
        for name, definition in self.definitions.items():
            if definition['kind'] != 'train':
                continue
            try:
                check_batch_sizes(self._with_options(name, ('train_dataloader', 'optim_wrapper')))
            except CASTError as error:
                raise CASTError(f'{self.path}: step {name}: {error}') from error

    def _check_transforms(self) -> None:
        """Raises CASTError where ``datasets.transforms`` names none that a step has, or has sizes
        that are none.
        """
        wanted = self._filled_in(self.config.to_dict().get('datasets'))
        wanted = wanted.get('transforms') if isinstance(wanted, dict) else None
        known = {name for config in self._configs.values() for name in transforms_of(config)}
        for name in wanted if isinstance(wanted, dict) else ():
            if name not in known:
                raise CASTError(
                    f'{self.path}: datasets.transforms.{name}: no step has this transform; '
                    f'{hint(name, sorted(known))}'
                )
            check_sizes(wanted[name], f'{self.path}: datasets.transforms.{name}')

    def _check_mixing(self) -> None:
        """Raises CASTError where ``mixing`` has options that there are not, or would mix nothing:
        no step, or not the one that it is given to, learns from pseudo-labels.
        """
        learning = [
            name
            for name, config in self._configs.items()
            if self.definitions[name]['kind'] == 'train' and pseudo_labeled_data(config)
        ]
        places = {'': self.config.to_dict().get('mixing')} | {
            name: definition.get('mixing') for name, definition in self.definitions.items()
        }
        for name, mixing in places.items():
            place = f'{self.path}: step {name}' if name else str(self.path)
            if mixing and (name not in learning if name else not learning):
                raise CASTError(
                    f'{place}: mixing is of pseudo-labeled images, and none is trained on; steps '
                    f'with them: {", ".join(learning) or "none"}'
                )
            try:
                build_mixing(self._filled_in(mixing))
            except CASTError as error:
                raise CASTError(f'{place}: {error}') from error

    def _in_order_of_need(self) -> dict[str, dict]:
        """The definitions in their order, but each behind the steps whose outputs it uses.

        A dict of steps may have lost its order: a config's are appended to those of its base, and
        MMEngine sorts the keys of what it dumps.

        Raises:
            CASTError: steps use one another's outputs in a circle.
        """
        order: dict[str, dict] = {}

        def put(name: str, *users: str) -> None:
            if name in users:
                raise CASTError(
                    f'{self.path}: steps use one another in a circle: {" <- ".join([*users, name])}'
                )
            needed = self.needs(name)
            for other in self.definitions:
                if other in needed and other not in order:
                    put(other, *users, name)
            order[name] = self.definitions[name]

        for name in self.definitions:
            if name not in order:
                put(name)
        return order

    def _load(self, definition: dict, user: str) -> Config:
        name = self.resolve(definition['config'], user)
        if name != definition['config']:  # a variable that is misspelt, rather than a path
            self._check_that_it_exists(name, definition['config'], user)
        config = load_config(name, self.path.parent)
        check_names_of_run(config)
        return config

    def _check_that_it_exists(self, name: str, template: str, user: str) -> None:
        """Raises CASTError where the template of a config's name becomes that of no file."""
        with contextlib.suppress(CASTError):
            find_config(name, self.path.parent)
            return
        folders = [folder / Path(name).parent for folder in (self.path.parent, shipped_configs())]
        files = sorted(file.name for folder in set(folders) for file in folder.glob('*.py'))
        raise CASTError(
            f'{self.path}: {user}: {template} is {name}, which is not there; '
            f'{hint(Path(name).name, files)}'
        )

    def choose(self, steps: Sequence[str], rerun: Sequence[str]) -> None:
        """Says which steps are to run: ``steps``, or all, and those of ``rerun`` ('all') again.

        Raises:
            CASTError: there is no such step.
        """
        self.check_names([*steps, *(name for name in rerun if name != 'all')])
        self.rerun = set(self.definitions if list(rerun) == ['all'] else rerun)
        self.chosen = self.rerun.union(steps) if steps else set(self.definitions)

    def number(self, name: str) -> int:
        """A step's number, from 1."""
        return list(self.definitions).index(name) + 1

    def dependents(self, names: set[str]) -> set[str]:
        """The steps that use what some steps gave, directly or not; without these themselves."""
        stale = set(names)
        for name in self.definitions:  # in order, so that what depends on a dependent is found too
            if self.needs(name) & stale:
                stale.add(name)
        return stale - names

    def made_by(self, name: str) -> str:
        """The step that trained what a step of kind ``test`` reads, where it is one; else the step
        itself.
        """
        trained = [
            other for other in self.needs(name) if self.definitions[other]['kind'] == 'train'
        ]
        tests = self.definitions[name]['kind'] == 'test'
        return trained[0] if tests and len(trained) == 1 else name

    def device(self, name: str) -> str | None:
        """The device that a step names, if any."""
        return self._filled_in(self.definitions[name].get('device'))

    def check_names(self, names: Sequence[str]) -> None:
        """Raises CASTError where a name is not a step's."""
        for name in names:
            if idle := self._why_idle(name):
                raise CASTError(f'{self.path}: {idle}')
            if name not in self.definitions:
                raise CASTError(f'{self.path} has no step {name}; {hint(name, self.definitions)}')

    def _summary_rows(self) -> list[dict[str, str]]:
        """Dicts with ``row``, a title, and ``step``, in the order of the table."""
        wanted = self.config.get('summary', [])
        if isinstance(wanted, dict):
            dropped = self._dropped()
            self.check_names([name for name in wanted if name not in dropped])
            return [
                dict(row=wanted[name], step=name) for name in self.definitions if wanted.get(name)
            ]
        wanted = [row for row in wanted if row['step'] not in self._disabled]
        self.check_names([row['step'] for row in wanted])
        return [dict(row) for row in wanted]

    def _dropped(self) -> set[str]:
        """Names of the steps that a config took out of those of its base, or that are disabled."""
        steps = self.config.steps
        taken_out = (
            {name for name, step in steps.items() if step is None}
            if isinstance(steps, dict)
            else set()
        )
        return taken_out | self._disabled.keys()

    def _used_for(self, name: str, template: str, user: str) -> str:
        """The step whose outputs a template of step ``name`` means: the one that stands in for it
        where it is disabled.

        Raises:
            CASTError: none does.
        """
        if name not in self._disabled:
            return name
        step = self._disabled[name].instead
        if step is None:
            raise CASTError(
                f'{self.path}: {user} uses {{{template}}}, but {self._why_idle(name)}, and none '
                'stands in for it'
            )
        return step

    def report_columns(self) -> list[dict]:
        """The pictures of each image in the report: dicts with ``title``, ``config``,
        ``checkpoint``, ``cfg_options``, ``transforms``.

        A column may name a ``step``, whose network it then is; that of a step that does not run
        shows the one that stands in for it, unless another column does. Templates are unresolved.

        Raises:
            CASTError: a column names an unknown step, or lacks what it is to show.
        """
        columns = []
        wanted = self.config.get('report', {}).get('columns') or []
        shown = {column.get('step') for column in wanted}
        for column in wanted:
            step = column.get('step')
            if step in self._disabled:
                step = self._disabled[step].instead
                if step is None or step in shown:
                    continue
            elif step in self._dropped():
                continue
            if step:
                self.check_names([step])
                definition = self.definitions[step]
                if definition['kind'] != 'train':
                    raise CASTError(
                        f'{self.path}: column {column.get("title")} of the report shows step '
                        f'{step}, which trains nothing'
                    )
                column = dict(
                    title=column['title'],
                    config=definition['config'],
                    checkpoint=f'{{{step}.checkpoint}}',
                    cfg_options=definition.get('cfg_options', {}),
                    transforms=definition.get('transforms', {}),
                )
            elif lacking := [key for key in ('config', 'checkpoint') if not column.get(key)]:
                raise CASTError(
                    f'{self.path}: column {column.get("title")} of the report lacks a step, or '
                    f'{" and ".join(lacking)}'
                )
            columns.append(dict(column))
        return columns

    def _check_report(self) -> None:
        """Raises CASTError where what the report will read is of no step that runs: it is made
        after hours.
        """
        report = self.config.to_dict().get('report') or {}
        columns = self.report_columns()
        read = [columns, report.get('other_runs')]
        if columns:
            read += [report.get('ann_file'), report.get('img_dir')]
        if any(definition['kind'] == 'pseudo_label' for definition in self.definitions.values()):
            read.append(report.get('pseudo_labels'))
        self._steps_used(read, 'report')

    def resolve(self, value: Any, user: str, state: PipelineState | None = None) -> Any:
        """``value`` with its templates replaced.

        Args:
            value: from the config.
            user: who needs it, for the message.
            state: knows the outputs of finished steps.

        Raises:
            CASTError: a template is unknown, or of a step that is not finished.
        """

        def output(name: str, inside: tuple[str, ...]) -> Any:
            place = f'variables.{inside[0]}' if inside else user
            return self._output(name, place, inside, state)

        return self._fill_in(value, output)

    def _variables(self) -> dict[str, Any]:
        """The values of templates that are not outputs of steps, their own templates unresolved."""
        return dict(
            work_dir=str(self.work_dir),
            seed=self.config.get('seed'),
            config_dir=str(self.path.parent),
            configs=str(shipped_configs()),
            **self.config.get('variables', {}),
        )

    def _output(
        self, name: str, user: str, inside: tuple[str, ...], state: PipelineState | None
    ) -> Any:
        """The value of a template that is no variable: one output of a step, or all."""
        step, _, output = name.partition('.')
        step = self._used_for(step, name, user)
        if step in self._off:
            return None
        if step not in self.definitions:
            raise CASTError(self._unknown(name, user, inside))
        if state is None or not state.finished(step):
            raise CASTError(
                f'{user} needs {{{name}}}, but step {step} is not finished; run it first: --step '
                f'{step}'
            )
        outputs = state.outputs(step)
        if not output:
            return outputs
        if output not in outputs:
            raise CASTError(
                f'{user} uses {{{name}}}, but step {step} gave no {output}; {hint(output, outputs)}'
            )
        return outputs[output]

    def needs(self, name: str) -> set[str]:
        """Names of the steps whose outputs a step uses, directly or through variables.

        Raises:
            CASTError: it uses a name that is neither a variable nor a step.
        """
        definition = self.definitions[name]
        shared = (
            []
            if definition['kind'] == 'call'
            else [self.config.get(key) for key in ('datasets', 'step_options')]
        )
        others = self._parts(name) if definition['kind'] in DEFAULTS else []
        return self._steps_used([definition, *others, *shared], f'step {name}') - {name}

    def _steps_used(self, value: Any, user: str) -> set[str]:
        """Names of the steps whose outputs are in ``value``, directly or through variables.

        Raises:
            CASTError: it has a name that is neither a variable nor a step.
        """
        used: set[str] = set()

        def note(template: str, inside: tuple[str, ...]) -> str:
            step, _, output = template.partition('.')
            step = self._used_for(step, template, user)
            if step in self._off:
                return ''
            if step not in self.definitions:
                raise CASTError(self._unknown(template, user, inside))
            check_output(step, self.definitions[step], output, f'{self.path}: {user}')
            used.add(step)
            return ''

        self._fill_in(value, note)
        return used

    def _unknown(self, template: str, user: str, inside: tuple[str, ...]) -> str:
        variables = [name for name in self._variables() if name not in inside]
        known = [*variables, *(f'{step}.<output>' for step in self.definitions)]
        output = template.partition('.')[2]
        steps = [f'{name}.{output}' if output else name for name in self.definitions]
        similar = nearest(template, [*variables, *steps])
        meant = f'did you mean {similar}?' if similar else f'known are {", ".join(known)}'
        return f'{self.path}: {user} uses {{{template}}}, which is not known; {meant}'

    def check_outputs(self, state: PipelineState) -> None:
        """Raises CASTError where the config uses an output that a finished step does not have, or
        options that it left would do nothing: the steps that use it may come hours later.
        """
        for template in sorted(self._templates(self.definitions)):
            step, _, output = template.partition('.')
            if template in self._variables() or step not in self.definitions or not output:
                continue
            if state.finished(step):
                self._output(template, str(self.path), (), state)
        for name, config in self._configs.items():
            options = self._known_options(name, state)
            if isinstance(self.definitions[name].get('cfg_options'), str) and isinstance(
                options, dict
            ):
                found = find_unknown(config, nested(options))
                refuse(f'{self.path}: options of step {name}', found)

    def step(self, name: str, folder: Path, state: PipelineState) -> Step:
        """A step with its templates resolved and its whole MMEngine config, ready to run in
        ``folder``.
        """
        definition = self.resolve(self.definitions[name], f'step {name}', state)
        if definition.get('thresholds', '') is None:  # as if there were no such key
            del definition['thresholds']
        config = None
        if definition['kind'] in DEFAULTS:
            return self._held_out_step(name, definition, folder, state)
        if definition['kind'] != 'call':
            files = self.files(definition, state)
            if definition['kind'] == 'pseudo_label':
                definition.setdefault('ann_file', files.get('unlabeled'))
                definition.setdefault('img_dir', unlabeled_images(files))
            config = self.step_config(copy.deepcopy(self._configs[name]), definition, files, state)
        return Step(name, definition, folder, config)

    def _parts(self, name: str) -> list[dict]:
        return parts_of(name, self.definitions, self._filled_in)

    def _held_out_step(
        self, name: str, definition: dict, folder: Path, state: PipelineState
    ) -> Step:
        """A step that takes after others, see ``named_steps.py``."""
        parts = self.resolve(self._parts(name), f'step {name}', state)
        configs = [
            self.step_config(
                copy.deepcopy(self._configs[other]), part, self.files(part, state), state
            )
            for other, part in zip(names_of(definition), parts, strict=True)
        ]
        # 3 and the text of a command line are the same.
        definition['folds'] = number_of_folds(definition['folds'], f'folds of step {name}')
        if definition['kind'] == 'folds':
            loads = loads_of(definition, self.definitions, self._filled_in)
            definition |= dict(
                train=names_of(definition), loads=loads, seed=self.config.get('seed') or 0
            )
            return Step(name, definition, folder, configs[-1], configs)
        label, reader = parts[0], configs[1]
        definition |= dict(
            checkpoint=label.get('checkpoint'),
            views=views_of(label),
            reading=reading_options(reader),
        )
        return Step(name, definition, folder, configs[0])

    def files(self, definition: dict, state: PipelineState) -> dict[str, Any]:
        """The files of the pipeline's ``datasets``, and those that a step names instead; its
        ``transforms`` and ``mixing`` win over those of all steps.
        """
        files = dict(self.resolve(self.config.get('datasets', {}), 'datasets', state))
        files['transforms'] = {
            **(files.get('transforms') or {}),
            **(definition.get('transforms') or {}),
        }
        shared = self.resolve(self.config.get('mixing'), 'mixing', state)
        own = definition.get('mixing', {})  # None: none in this step
        if own is not None and (shared or own):
            files['mixing'] = merge_mixing(shared, own)
        return files | {
            key: definition[key] for key in ('labeled', 'pseudo_labels') if key in definition
        }

    def column_config(self, column: dict, state: PipelineState) -> Config:
        """The whole MMEngine config of a column of the report, templates resolved."""
        definition = dict(column, kind='test')
        config = self._load(definition, 'report')
        return self.step_config(config, definition, self.files(definition, state), state)

    def step_config(
        self, config: Config, definition: dict, files: dict, state: PipelineState
    ) -> Config:
        """Changes a step's config as the pipeline says; the step's ``cfg_options`` win over
        ``step_options``.
        """
        train = definition['kind'] == 'train'
        set_config_data(config, files, train)
        shared = self.resolve(dict(self.config.get('step_options', {})), 'step_options', state)
        for options in (shared, definition.get('cfg_options') or {}):
            merge_run_options(config, nested(options))
        if definition.get('thresholds'):
            for dataset in pseudo_labeled_data(config):
                # Where a class has none of its own, its score_thr is in the file.
                dataset.update(score_thr=0, thresholds_from=dict(held_out=definition['thresholds']))
        if not train:
            config.load_from = None  # the step's checkpoint counts
        elif definition.get('load_from'):
            config.load_from = definition['load_from']
        if self.config.get('seed') is not None:
            config.randomness = dict(config.get('randomness', {}), seed=self.config.seed)
        if self.amp and train:
            use_amp(config)
        return config

    def iterations(self, name: str, state: PipelineState | None = None) -> int:
        """How many a training step has, 0 for other kinds.

        Args:
            name: of the step.
            state: knows what finished steps decided; without, the step's own config counts.
        """
        definition = self.definitions[name]
        if definition['kind'] == 'folds':
            folds = folds_of(definition, self._filled_in)
            runs = [self.iterations(other, state) for other in names_of(definition)]
            number = folds if isinstance(folds, int) else 0
            return number * sum(shortened(run, definition['fraction']) for run in runs)
        if definition['kind'] != 'train':
            return 0
        config = self._with_options(name, ('train_cfg',), state)
        return int(config.train_cfg.get('max_iters', 0))

    def _with_options(
        self, name: str, keys: Sequence[str], state: PipelineState | None = None
    ) -> Config:
        """Some top-level keys of a step's config, with the options that are known."""
        own = self._configs[name]
        config = Config({key: copy.deepcopy(own[key]) for key in keys if key in own})
        shared = self._filled_in(self.config.to_dict().get('step_options') or {})
        for options in (shared, self._known_options(name, state)):
            if isinstance(options, dict):
                given = nested(options)
                merge_run_options(config, {key: given[key] for key in given if key in keys})
        return config

    def _known_options(self, name: str, state: PipelineState | None) -> Any:
        """A step's ``cfg_options``, as what a finished step left where they are a template of it,
        else as written.
        """
        options = self._filled_in(self.definitions[name].get('cfg_options') or {})
        whole = TEMPLATE.fullmatch(options) if isinstance(options, str) else None
        if whole and state is not None and state.finished(whole[1].partition('.')[0]):
            return self.resolve(options, f'step {name}', state)
        return options


def order_steps(steps: list[dict] | dict[str, dict | None]) -> dict[str, dict]:
    """Definitions by name in the order in which they run, ``name`` and ``after`` taken out.

    Raises:
        CASTError: two have one name, or ``after`` names no step, or steps after one another.
    """
    if not isinstance(steps, dict):
        names = [step.get('name') for step in steps]
        if len(set(names)) < len(names):
            raise CASTError(f'two steps of one name; names are {", ".join(map(str, names))}')
        steps = {
            name: {key: value for key, value in step.items() if key != 'name'}
            for name, step in zip(names, steps, strict=True)
        }
    places = {name: step.pop('after', None) for name, step in steps.items() if step is not None}
    order = [name for name, after in places.items() if after is None]
    followers: dict[str, str] = {}  # the last step that was put behind another
    while waiting := [name for name in places if name not in order]:
        name = next((name for name in waiting if places[name] in order), None)
        if name is None:
            raise CASTError(
                f'step {waiting[0]} is to run after {places[waiting[0]]}, which is not a step that '
                f'could run before it; there are {", ".join(places)}'
            )
        after = places[name]
        order.insert(order.index(followers.get(after, after)) + 1, name)
        followers[after] = name
    return {name: steps[name] for name in order}


def resolve(value: Any, lookup: Callable[[str], Any]) -> Any:
    """Replaces templates in the strings of nested dicts and lists.

    Args:
        value: anything; only the strings in it are resolved (dict keys are not).
        lookup: gives the value of a name, raises for an unknown one.

    Returns:
        A copy. A string that is exactly one template becomes the value itself, of whatever type.
    """
    if isinstance(value, dict):
        return {key: resolve(item, lookup) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(resolve(item, lookup) for item in value)
    if not isinstance(value, str):
        return value
    whole = TEMPLATE.fullmatch(value)
    if whole:
        return lookup(whole[1])
    return TEMPLATE.sub(lambda match: str(lookup(match[1])), value)
