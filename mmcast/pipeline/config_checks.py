"""What a pipeline config may not say, given the configs of its steps and those that it inherits."""

import copy
import os
from collections.abc import Iterator, Mapping, Set
from typing import Any

from mmengine.config import Config

from mmcast.configs import load_bases
from mmcast.data.config_data import labeled_data, pseudo_labeled_data, transforms_of
from mmcast.data.mixing import build_mixing
from mmcast.errors import CASTError
from mmcast.pipeline.held_out import ON_VAL, reading_options
from mmcast.pipeline.named_steps import folds_of, names_of
from mmcast.pipeline.settings import check_sizes
from mmcast.pipeline.state import flatten
from mmcast.pipeline.templates import Templates
from mmcast.spelling import hint
from mmcast.training.batches import check_batch_sizes, divide_batch_size
from mmcast.training.checkpoints import check_filenames, hook_options
from mmcast.training.overrides import Finding, find_unknown, nested, refuse

_Definitions = Mapping[str, dict]
_Configs = Mapping[str, Config]


def check_typed_options(
    cfg_options: Mapping[str, Any], steps: _Definitions, templates: Templates
) -> None:
    """Raises CASTError where an option of the command line is for a step that does not run.

    Args:
        cfg_options: dotted keys -> values.
        steps: definitions of all steps, with these options.
        templates: of the pipeline config.
    """
    for key in flatten(nested(cfg_options)):
        section, _, rest = key.partition('.')
        name, _, setting = rest.partition('.')
        idle = templates.why_idle(name)
        if section != 'steps' or not idle or setting in ('enabled', 'instead'):
            continue
        if setting != 'folds' or folds_of(steps[name], templates.fill_in) != 0:  # as 0 says so
            raise CASTError(f'{templates.place}: {key} would do nothing: {idle}')


def check_against_bases(
    config: Config, path: str | os.PathLike, used: Set[str], taken_out: Set[str]
) -> None:
    """Raises CASTError for a variable that nothing uses, or a step to drop that there is not: names
    that a config misspells where it inherits another one.

    Args:
        config: of the pipeline.
        path: its file.
        used: the names of its templates.
        taken_out: names of the steps that it drops.
    """
    bases = load_bases(path)
    if not bases:
        return
    known = [name for base in bases for name in base.get('variables') or {}]
    for name in config.get('variables') or {}:
        if name not in known and name not in used:
            raise CASTError(f'{path}: variables.{name} is used by nothing; {hint(name, known)}')
    steps = [name for base in bases for name in base.get('steps') or {}]
    for name in taken_out:
        if name not in steps:
            raise CASTError(f'{path}: there is no step {name} to drop; {hint(name, steps)}')


def check_step_options(
    step_options: Any, definitions: _Definitions, configs: _Configs, templates: Templates
) -> None:
    """Raises CASTError where options for the steps' configs would do nothing; names all.

    Those of several steps may be meant for one of them, but not where another would not start: no
    data set or sampler is made with an argument that it does not take.

    Args:
        step_options: the pipeline's, for all steps.
        definitions: of the steps, by name.
        configs: of the steps that have one, by name.
        templates: of the pipeline config.
    """
    fill = templates.fill_in
    users: dict[str, tuple[dict, list[str]]] = {}

    def breaks_training(name: str, item: Finding) -> bool:
        return definitions[name]['kind'] == 'train' and item.key.startswith('train_dataloader.')

    for name in configs:
        options = definitions[name].get('cfg_options') or {}
        source = options if isinstance(options, str) else f'cfg_options of step {name}'
        for whose, given in (('step_options', fill(step_options)), (source, fill(options))):
            if isinstance(given, dict):
                users.setdefault(whose, (given, []))[1].append(name)
    for whose, (given, names) in users.items():
        found = [find_unknown(configs[name], nested(given)) for name in names]
        unknown = set.intersection(*({item.key for item in items} for items in found))
        wrong = {
            item.key: Finding(item.key, f'{item.message} (step {name})')
            for name, items in zip(names[::-1], found[::-1])
            for item in items
            if item.breaks or item.key in unknown or breaks_training(name, item)
        }
        refuse(f'{templates.place}: {whose}', wrong.values())


def find_overruled(
    step_options: Mapping[str, Any], options: Mapping[str, Mapping], configs: _Configs
) -> dict[str, list[str]]:
    """Options for all steps that change no training step, as every one has its own, which win.

    Where one step has none, the others are exceptions that somebody wanted.

    Args:
        step_options: the pipeline's, as :func:`nested` makes them.
        options: of the training steps, by name, likewise.
        configs: of the steps, by name.

    Returns:
        The training steps whose configs have a place for it, by the dotted key.
    """
    overruled = {}
    for path, value in _leaves(step_options):
        won = {name: _in_place_of(own, path) for name, own in options.items()}
        for name in options:
            if won[name] is None and not _has(configs[name].to_dict(), path[:-1]):
                del won[name]  # of another kind of network
        if None not in won.values() and any(other != [value] for other in won.values()):
            overruled['.'.join(path)] = list(won)
    return overruled


def _leaves(
    options: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Keys and values of nested options."""
    for key, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        elif key != '_delete_':
            yield (*path, key), value


def _has(content: dict, path: tuple[str, ...]) -> bool:
    """Whether a config has a dict or list in a place."""
    found = _in_place_of(content, path)
    return bool(found) and isinstance(found[0], (Mapping, list, tuple))


def _in_place_of(options: Any, path: tuple[str, ...]) -> list | None:
    """What nested options have in a place, or in the place of what holds it, in a list; None if
    they say nothing of it.
    """
    for key in path:
        if not isinstance(options, Mapping):
            break
        if key not in options:
            return [] if options.get('_delete_') else None
        options = options[key]
    return [options]


def check_checkpoints(configs: _Configs, place: str) -> None:
    """Raises CASTError where a training step would refuse how it is to save checkpoints.

    Args:
        configs: of the training steps, by name, with their options.
        place: the pipeline config's path, for the message.
    """
    for name, config in configs.items():
        try:
            check_filenames(hook_options(config))
        except CASTError as error:
            raise CASTError(f'{place}: step {name}: {error}') from error


def check_batches(configs: _Configs, place: str, processes: int = 1) -> None:
    """Raises CASTError where a training step would have batches of one source alone, or ones that
    the processes cannot share.

    Args:
        configs: of the training steps, by name, with their options.
        place: the pipeline config's path, for the message.
        processes: that train together.
    """
    for name, config in configs.items():
        try:
            check_batch_sizes(config)
            if config.get('divide_batch_size') and config.get('train_dataloader'):
                divide_batch_size(copy.deepcopy(config.train_dataloader), processes)
        except CASTError as error:
            raise CASTError(f'{place}: step {name}: {error}') from error


def check_transforms(datasets: Any, configs: _Configs, place: str) -> None:
    """Raises CASTError where ``datasets.transforms`` names none that a step has, or has sizes that
    are none.

    Args:
        datasets: the pipeline's, with the variables in it.
        configs: of the steps, by name.
        place: the pipeline config's path, for the message.
    """
    wanted = datasets.get('transforms') if isinstance(datasets, dict) else None
    known = {name for config in configs.values() for name in transforms_of(config)}
    for name in wanted if isinstance(wanted, dict) else ():
        if name not in known:
            raise CASTError(
                f'{place}: datasets.transforms.{name}: no step has this transform; '
                f'{hint(name, sorted(known))}'
            )
        check_sizes(wanted[name], f'{place}: datasets.transforms.{name}')


def check_mixing(mixing: Any, definitions: _Definitions, configs: _Configs, place: str) -> None:
    """Raises CASTError where ``mixing`` has options that there are not, or would mix nothing: no
    step, or not the one that it is given to, learns from pseudo-labels.

    Args:
        mixing: the pipeline's, of all steps, with the variables in it.
        definitions: of the steps, by name, with the variables in them.
        configs: of the steps that have one, by name.
        place: the pipeline config's path, for the message.
    """
    learning = [
        name
        for name, config in configs.items()
        if definitions[name]['kind'] == 'train' and pseudo_labeled_data(config)
    ]
    places = {'': mixing} | {name: one.get('mixing') for name, one in definitions.items()}
    for name, given in places.items():
        whose = f'{place}: step {name}' if name else place
        if given and (name not in learning if name else not learning):
            raise CASTError(
                f'{whose}: mixing is of pseudo-labeled images, and none is trained on; steps with '
                f'them: {", ".join(learning) or "none"}'
            )
        try:
            build_mixing(given)
        except CASTError as error:
            raise CASTError(f'{whose}: {error}') from error


def check_held_out(definitions: _Definitions, configs: _Configs, templates: Templates) -> None:
    """Raises CASTError where thresholds would be chosen for, or given to, a step that reads no
    pseudo-labels, or on folds that no step makes, or folds made of no labels.

    Args:
        definitions: of the steps, by name.
        configs: of the steps that have one, by name.
        templates: of the pipeline config.
    """
    for name, definition in definitions.items():
        if definition['kind'] == 'folds':
            for other in names_of(definition):
                labeled_data(configs[other])
        elif definition['kind'] == 'thresholds':
            reading_options(configs[definition['used_by']])
            folds = folds_of(definition, templates.fill_in)
            if folds != ON_VAL and not templates.steps_in(definition['held_out'], f'step {name}'):
                raise CASTError(
                    f'{templates.place}: step {name} has folds={folds}, but no step makes folds; '
                    f'set variables.threshold_folds={folds}, which is for all steps'
                )
        elif 'thresholds' in definition and not pseudo_labeled_data(configs[name]):
            raise CASTError(
                f'{templates.place}: step {name} has thresholds, but its config has no '
                'PseudoLabelDataset'
            )
