"""What a pipeline config asks for: steps in their order, each with its settings once their values
are known.
"""

import contextlib
import copy
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmcast.configs import find_config, load_config, shipped_configs
from mmcast.data.config_data import pseudo_labeled_data, set_config_data, unlabeled_images
from mmcast.data.mixing import merge_mixing
from mmcast.errors import CASTError
from mmcast.pipeline.config_checks import (
    check_against_bases,
    check_batches,
    check_checkpoints,
    check_held_out,
    check_mixing,
    check_step_options,
    check_transforms,
    check_typed_options,
    find_overruled,
)
from mmcast.pipeline.held_out import number_of_folds, reading_options, shortened
from mmcast.pipeline.named_steps import (
    DEFAULTS,
    completed,
    folds_of,
    loads_of,
    names_of,
    parts_of,
    steps_that_are_off,
    take_out_disabled,
    views_of,
)
from mmcast.pipeline.order import order_by_need, order_steps
from mmcast.pipeline.settings import (
    PIPELINE_KEYS,
    check_arguments,
    check_choices,
    check_sections,
    check_step,
    merge_options,
)
from mmcast.pipeline.state import PipelineState
from mmcast.pipeline.steps import Step
from mmcast.pipeline.templates import Templates, names_in
from mmcast.spelling import hint
from mmcast.training.batches import merge_run_options
from mmcast.training.overrides import check_names_of_run, find_unknown, nested, refuse
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
        self.definitions, self.templates = self._read_steps()
        check_typed_options(cfg_options or {}, self.config.steps, self.templates)
        self._check_definitions()
        check_against_bases(self.config, self.path, used | self._templates(), self._taken_out())
        if isinstance(self.config.steps, dict):
            self.definitions = order_by_need(self.definitions, self.needs, str(self.path))
        # All configs are read now, rather than after hours.
        self._configs = {
            name: self._load(definition, f'step {name}')
            for name, definition in self.definitions.items()
            if definition['kind'] != 'call'
        }
        self._check_configs()
        self.rows = self._summary_rows()
        self._check_report()
        self.choose([], [])

    def _read_steps(self) -> tuple[dict[str, dict], Templates]:
        """The definitions of the steps that run, as written, and what templates stand for."""
        variables = dict(
            work_dir=str(self.work_dir),
            seed=self.config.get('seed'),
            config_dir=str(self.path.parent),
            configs=str(shipped_configs()),
            **self.config.get('variables', {}),
        )
        templates = Templates(str(self.path), variables)
        steps = order_steps(self.config.to_dict()['steps'])
        disabled = take_out_disabled(steps, self._taken_out(), variables.keys(), templates.fill_in)
        templates = replace(templates, disabled=disabled)
        gone = self._taken_out() | disabled.keys()
        off = steps_that_are_off(steps, gone, templates.fill_in)
        for name in off:
            del steps[name]
        if not steps:
            raise CASTError(f'{self.path}: none of its steps would run')
        return steps, replace(templates, steps=steps, off=off)

    def _check_definitions(self) -> None:
        """Raises CASTError where a step has unknown keys, or uses or names what is not there; puts
        in the keys that it may leave out.
        """
        for name, definition in self.definitions.items():
            check_step(name, definition, [other for other in self.definitions if other != name])
        for name, definition in self.definitions.items():
            if definition['kind'] in DEFAULTS:
                for idle in filter(None, map(self.templates.why_idle, names_of(definition))):
                    raise CASTError(f'{self.path}: step {name} names a step, but {idle}')
                self.definitions[name] = completed(name, self.definitions)
        for name in self.definitions:
            self.needs(name)  # knows every name

    def _check_configs(self) -> None:
        """Raises CASTError where settings would do nothing, or the wrong thing, with the steps'
        configs.
        """
        place, configs, fill = str(self.path), self._configs, self.templates.fill_in
        content, definitions = self.config.to_dict(), fill(self.definitions)
        shared = content.get('step_options') or {}
        check_step_options(shared, self.definitions, configs, self.templates)
        trained = {
            name: self.with_options(name, ('train_dataloader', 'optim_wrapper', 'default_hooks'))
            for name, definition in definitions.items()
            if definition['kind'] == 'train'
        }
        check_batches(trained, place)
        check_checkpoints(trained, place)
        check_transforms(fill(content.get('datasets')), configs, place)
        check_mixing(fill(content.get('mixing')), definitions, configs, place)
        check_held_out(definitions, configs, self.templates)
        for name, definition in definitions.items():
            check_arguments(name, definition)

    def _templates(self) -> set[str]:
        """The names in all templates of the config that anything reads."""
        content = self.config.to_dict()
        return names_in([content[key] for key in PIPELINE_KEYS if key in content])

    def _load(self, definition: dict, user: str) -> Config:
        name = self.templates.resolve(definition['config'], user)
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

    def students(self) -> list[str]:
        """The training steps of the student, in order: no pseudo-labels depend on them, nor is
        their network one that makes pseudo-labels, unless all of these steps have it.
        """
        kinds = {name: definition['kind'] for name, definition in self.definitions.items()}
        labeling = {name for name, kind in kinds.items() if kind == 'pseudo_label'}
        trained = [
            name
            for name, kind in kinds.items()
            if kind == 'train' and not self.dependents({name}) & labeling
        ]
        teachers = [self._network(name) for name in labeling]
        # A teacher trained for a row of the table labels nothing, and is no student all the same.
        others = [name for name in trained if self._network(name) not in teachers]
        return others or trained

    def _network(self, name: str) -> dict:
        """The settings of the network that a step trains or uses, as far as they are known."""
        model = self.with_options(name, ('model',)).to_dict().get('model') or {}
        return model.get('detector', model)

    def device(self, name: str) -> str | None:
        """The device that a step names, if any."""
        return self.templates.fill_in(self.definitions[name].get('device'))

    def check_names(self, names: Sequence[str]) -> None:
        """Raises CASTError where a name is not a step's."""
        for name in names:
            if idle := self.templates.why_idle(name):
                raise CASTError(f'{self.path}: {idle}')
            if name not in self.definitions:
                raise CASTError(f'{self.path} has no step {name}; {hint(name, self.definitions)}')

    def _summary_rows(self) -> list[dict[str, str]]:
        """Dicts with ``row``, a title, and ``step``, in the order of the table."""
        wanted = self.config.get('summary', [])
        if isinstance(wanted, dict):
            gone = self._taken_out() | self.templates.disabled.keys()
            self.check_names([name for name in wanted if name not in gone])
            return [
                dict(row=wanted[name], step=name) for name in self.definitions if wanted.get(name)
            ]
        wanted = [row for row in wanted if row['step'] not in self.templates.disabled]
        self.check_names([row['step'] for row in wanted])
        return [dict(row) for row in wanted]

    def _taken_out(self) -> set[str]:
        """Names of the steps that a config took out of those of its base."""
        steps = self.config.steps
        return {name for name in steps if steps[name] is None} if isinstance(steps, dict) else set()

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
            if step in self.templates.disabled:
                step = self.templates.disabled[step].instead
                if step is None or step in shown:
                    continue
            elif step in self._taken_out():
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
        self.templates.steps_in(read, 'report')

    def needs(self, name: str) -> set[str]:
        """Names of the steps whose outputs a step uses, directly or through variables.

        Raises:
            CASTError: it uses a name that is neither a variable nor a step.
        """
        return self.templates.steps_in(self._read_by(name), f'step {name}') - {name}

    def _read_by(self, name: str) -> list:
        """The parts of the config that decide what a step is."""
        definition = self.definitions[name]
        shared = (
            []
            if definition['kind'] == 'call'
            else [self.config.get(key) for key in ('datasets', 'step_options')]
        )
        others = self._parts(name) if definition['kind'] in DEFAULTS else []
        return [definition, *others, *shared]

    def check_outputs(self, names: Iterable[str], state: PipelineState) -> None:
        """Raises CASTError where a step uses an output that a finished one does not have, or
        options that it left would do nothing: the steps that use it may come hours later.

        Args:
            names: of the steps that are to run.
            state: knows what finished steps left.
        """
        parts = {f'step {name}': self._read_by(name) for name in names}
        for user, part in {**parts, 'report': [self.config.get('report')]}.items():
            for template in sorted(names_in(self.templates.fill_in(part))):
                step, _, output = template.partition('.')
                if step not in self.definitions or not output or not state.finished(step):
                    continue
                # In the report a typo was found before, but of what a function gives; a best
                # checkpoint that there is not must stop no other step.
                if user != 'report' or self.definitions[step]['kind'] == 'call':
                    self.templates.output(template, f'{self.path}: {user}', state)
        for name, config in self._configs.items():
            options = self._known_options(name, state)
            if self._decider(name) and isinstance(options, dict):
                found = find_unknown(config, nested(options))
                refuse(f'{self.path}: options of step {name}', found)
        self._check_overruled(state)

    def check_batches(self, names: Iterable[str], state: PipelineState, processes: int) -> None:
        """Raises CASTError where a training step would refuse its batches, perhaps hours later.

        Args:
            names: of the steps that are to run; one whose options are not known yet is left out.
            state: knows what finished steps decided.
            processes: that train together.
        """
        keys = ('train_dataloader', 'optim_wrapper', 'divide_batch_size')
        configs = {
            name: self.with_options(name, keys, state)
            for name in names
            if self.definitions[name]['kind'] == 'train'
            and not isinstance(self._known_options(name, state), str)
        }
        check_batches(configs, str(self.path), processes)

    def _check_overruled(self, state: PipelineState) -> None:
        """Raises CASTError where ``step_options`` would do nothing, as the options that a step left
        for the training steps win; names all.
        """
        shared = nested(self.templates.fill_in(self.config.to_dict().get('step_options') or {}))
        options = {
            name: self._known_options(name, state)
            for name, definition in self.definitions.items()
            if definition['kind'] == 'train'
        }
        own = {
            name: nested(given) if isinstance(given, dict) else {}
            for name, given in options.items()
        }
        problems = []
        for key, names in find_overruled(shared, own, self._configs).items():
            deciders = dict.fromkeys(filter(None, map(self._decider, names)))
            ways = [way for step in deciders for way in self._deciding_variables(step, key, state)]
            if deciders:
                problems.append(
                    f'step_options.{key} would do nothing: step {" and ".join(deciders)} decides '
                    f'it for {", ".join(names)}; '
                    + (f'set {" or ".join(ways)}' if ways else 'change what that step is given')
                )
        if problems:
            raise CASTError(f'{self.path}: {"; ".join(problems)}')

    def _deciding_variables(self, step: str, key: str, state: PipelineState) -> list[str]:
        """The variables that change what a step decided about an option of others: those that it
        names, else those whose options it puts over its own.
        """
        named = state.outputs(step).get('variables', {}).get(key)
        used = names_in(self.definitions[step]) & self.templates.variables.keys()
        of_options = [f'{name}.{key}' for name in sorted(used) if name.endswith('_options')]
        return [f'variables.{name}' for name in named or of_options]

    def step(self, name: str, folder: Path, state: PipelineState) -> Step:
        """A step with its templates resolved and its whole MMEngine config, ready to run in
        ``folder``.
        """
        definition = self.templates.resolve(self.definitions[name], f'step {name}', state)
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
        return parts_of(name, self.definitions, self.templates.fill_in)

    def _held_out_step(
        self, name: str, definition: dict, folder: Path, state: PipelineState
    ) -> Step:
        """A step that takes after others, see ``named_steps.py``."""
        parts = self.templates.resolve(self._parts(name), f'step {name}', state)
        configs = [
            self.step_config(
                copy.deepcopy(self._configs[other]), part, self.files(part, state), state
            )
            for other, part in zip(names_of(definition), parts, strict=True)
        ]
        # 3 and the text of a command line are the same.
        definition['folds'] = number_of_folds(definition['folds'], f'folds of step {name}')
        if definition['kind'] == 'folds':
            loads = loads_of(definition, self.definitions, self.templates.fill_in)
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
        files = dict(self.templates.resolve(self.config.get('datasets', {}), 'datasets', state))
        files['transforms'] = {
            **(files.get('transforms') or {}),
            **(definition.get('transforms') or {}),
        }
        shared = self.templates.resolve(self.config.get('mixing'), 'mixing', state)
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
        shared = dict(self.config.get('step_options', {}))
        shared = self.templates.resolve(shared, 'step_options', state)
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
            folds = folds_of(definition, self.templates.fill_in)
            runs = [self.iterations(other, state) for other in names_of(definition)]
            number = folds if isinstance(folds, int) else 0
            return number * sum(shortened(run, definition['fraction']) for run in runs)
        if definition['kind'] != 'train':
            return 0
        config = self.with_options(name, ('train_cfg',), state)
        return int(config.train_cfg.get('max_iters', 0))

    def with_options(
        self, name: str, keys: Sequence[str], state: PipelineState | None = None
    ) -> Config:
        """Some top-level keys of a step's config, with the options that are known."""
        own = self._configs[name]
        config = Config({key: copy.deepcopy(own[key]) for key in keys if key in own})
        shared = self.templates.fill_in(self.config.to_dict().get('step_options') or {})
        for options in (shared, self._known_options(name, state)):
            if isinstance(options, dict):
                given = nested(options)
                merge_run_options(config, {key: given[key] for key in given if key in keys})
        return config

    def _known_options(self, name: str, state: PipelineState | None) -> Any:
        """A step's ``cfg_options``, as what a finished step left where they are a template of it,
        else as written.
        """
        options = self.templates.fill_in(self.definitions[name].get('cfg_options') or {})
        decider = self._decider(name)
        if decider and state is not None and state.finished(decider):
            return self.templates.resolve(options, f'step {name}', state)
        return options

    def _decider(self, name: str) -> str | None:
        """The step whose output a step's ``cfg_options`` are, if any."""
        options = self.templates.fill_in(self.definitions[name].get('cfg_options') or {})
        whole = TEMPLATE.fullmatch(options) if isinstance(options, str) else None
        return whole[1].partition('.')[0] if whole else None
