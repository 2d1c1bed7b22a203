"""What a pipeline config may say, and what a command line may say about it: anything else is a
mistake that is named before a step runs.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from mmengine.config import Config

from mmcast.errors import CASTError
from mmcast.pipeline.steps import PSEUDO_LABEL_OPTIONS, find_function
from mmcast.pseudo_labels.generate import generate_pseudo_labels
from mmcast.spelling import find_misspelt, hint, misspelt
from mmcast.training.overrides import nested
from mmcast.typed_values import NO_DEFAULT, TEMPLATE, Typed, read_like

# What a step of each kind must and may say, besides its kind.
_STEP_KEYS: dict[str, tuple[set[str], set[str]]] = dict(
    call=({'function'}, {'kwargs'}),
    train=(
        {'config'},
        {
            'load_from',
            'labeled',
            'pseudo_labels',
            'thresholds',
            'mixing',
            'transforms',
            'cfg_options',
        },
    ),
    test=({'config', 'checkpoint'}, {'transforms', 'cfg_options'}),
    pseudo_label=(
        {'config', 'checkpoint'},
        {'ann_file', 'img_dir', *PSEUDO_LABEL_OPTIONS, 'transforms', 'cfg_options'},
    ),
    folds=({'folds', 'train'}, {'fraction', 'fewest_images'}),
    thresholds=({'folds', 'label', 'used_by'}, {'held_out', 'fewest_objects', 'lowest'}),
)
_EMPTY = inspect.Parameter.empty
# What a step leaves for others; what a function leaves is known when it has run.
_OUTPUTS = dict(
    train=['checkpoint', 'best_checkpoint'],
    test=[],
    pseudo_label=['annotations'],
    folds=['held_out', 'decisions'],
    thresholds=['thresholds', 'decisions'],
)
# What a pipeline config may say; its other names are its own.
PIPELINE_KEYS = (
    'work_dir',
    'seed',
    'variables',
    'choices',
    'datasets',
    'mixing',
    'steps',
    'step_options',
    'summary',
    'report',
    'model_card',
)
# See ``set_config_data``.
DATASETS_KEYS = (
    'labeled',
    'pseudo_labels',
    'unlabeled',
    'val',
    'test',
    'train_images',
    'unlabeled_images',
    'val_images',
    'test_images',
    'val_masks',
    'classes',
    'transforms',
)
REPORT_KEYS = (
    'columns',
    'images',
    'ann_file',
    'img_dir',
    'score_thr',
    'pseudo_labels',
    'other_runs',
)
COLUMN_KEYS = ('title', 'step', 'config', 'checkpoint', 'transforms', 'cfg_options')
# Options of ``inspect_pseudo_labels``.
INSPECTION_KEYS = (
    'labeled',
    'hidden',
    'score_thr',
    'class_score_thr',
    'mask_quality_thr',
    'agreement_thr',
    'min_area',
    'min_visible',
    'top_k',
    'images',
)
MODEL_CARD_KEYS = ('data', 'licences')


def merge_options(config: Config, options: Mapping[str, Any], place: str) -> None:
    """Merges the options of a command line into a pipeline config, in place.

    What was typed takes the type of what it replaces; below ``step_options`` and ``cfg_options`` it
    is read as MMEngine does.

    Args:
        config: of the pipeline.
        options: dotted keys -> values, ``Typed`` ones as they were typed.
        place: the config's path, for the message.

    Raises:
        CASTError: an option would do nothing, or is not what its setting takes; names all.
    """
    given: dict[str, Any] = {}
    problems = []
    for key, value in options.items():
        problem = _unknown_option(config, key)
        try:
            given[key] = _read(config, key, value) if isinstance(value, Typed) else value
        except CASTError as error:
            problem = problem or str(error)
        if problem:
            problems.append(problem)
    if problems:
        raise CASTError(f'{place}: {"; ".join(problems)}')
    try:
        config.merge_from_dict(nested(given))
    except (TypeError, KeyError, AttributeError) as error:  # a path through a number or text
        raise CASTError(
            f'{place}: {" ".join(given)} cannot be set, as a part of the key is not a dict or list '
            f'there ({error}); give that part whole'
        ) from error


def _unknown_option(config: Config, key: str) -> str | None:
    """What is wrong with a dotted key: nothing would read it."""
    first, *rest = key.split('.')
    if first not in PIPELINE_KEYS:
        if first in config:
            return (
                f'{key}: {first} is a name of the config file and was copied when the file was '
                'read; set what it was used for, such as steps.NAME.KEY'
            )
        return f'{key}: a pipeline has no {first}; {hint(first, PIPELINE_KEYS)}'
    known = config.get(first)
    if rest and first in ('variables', 'steps') and isinstance(known, dict):
        name = rest[0]
        new_step = first == 'steps' and rest[1:2] in (['kind'], ['function'], ['config'])
        if name not in known and not new_step:
            return f'{key}: there is no {first[:-1]} {name}; {hint(name, known)}'
    return None


def _read(config: Config, key: str, text: Typed) -> Any:
    """The value of an option of the pipeline itself."""
    parts = key.split('.')
    of_mmengine = parts[0] == 'step_options' or 'cfg_options' in parts
    return read_like(text, NO_DEFAULT if of_mmengine else _default(config, parts), key)


def _default(config: Config, parts: list[str]) -> Any:
    """The value that an option replaces; through a template, the variable's."""
    node: Any = config
    for part in parts:
        if isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, (Config, dict)) and part in node:
            node = node[part]
        else:
            return NO_DEFAULT
    template = TEMPLATE.fullmatch(node) if isinstance(node, str) else None
    return _default(config, ['variables', template[1]]) if template else node


def check_sections(config: Config, place: str) -> None:
    """Raises CASTError where a part of a pipeline config has keys that nothing reads; names all."""
    problems = find_misspelt(config, PIPELINE_KEYS)

    def check(part: Any, known: Iterable[str], name: str) -> None:
        if isinstance(part, dict):
            problems.extend(
                f'{name} has no {key}; {hint(str(key), known)}' for key in part if key not in known
            )

    report = config.get('report')
    check(config.get('datasets'), DATASETS_KEYS, 'datasets')
    check(report, REPORT_KEYS, 'report')
    check(config.get('model_card'), MODEL_CARD_KEYS, 'model_card')
    if isinstance(report, dict):
        check(report.get('pseudo_labels'), INSPECTION_KEYS, 'report.pseudo_labels')
        for number, column in enumerate(report.get('columns') or []):
            check(column, COLUMN_KEYS, f'report.columns.{number}')
    if isinstance(config.get('summary'), (list, tuple)):
        for number, row in enumerate(config.summary):
            check(row, ('row', 'step'), f'summary.{number}')
    if problems:
        raise CASTError(f'{place}: {"; ".join(problems)}')


def check_choices(config: Config, place: str) -> None:
    """Raises CASTError where a variable is none of its ``choices``; names all.

    Args:
        config: of the pipeline, after the options of a command line; ``choices`` has the values
            that a variable may take, by its name.
        place: the config's path, for the message.
    """
    variables = config.get('variables', {})
    problems = []
    for name, known in config.get('choices', {}).items():
        if name not in variables:
            problems.append(f'choices.{name} is of no variable; {hint(name, variables)}')
            continue
        value, texts = str(variables[name]), [str(each) for each in known]
        if value not in texts and not TEMPLATE.search(value):
            problems.append(f'variables.{name} is {value}; there are {", ".join(texts)}')
    if problems:
        raise CASTError(f'{place}: {"; ".join(problems)}')


def check_step(name: Any, definition: Any, names: Iterable[str]) -> None:
    """Raises CASTError where a step of a pipeline config has unknown or missing keys.

    Args:
        name: of the step.
        definition: its settings.
        names: of all steps.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise CASTError(
            f'a step needs a name of letters, digits and _, not {name!r}; correct `steps`'
        )
    kind = definition.get('kind') if isinstance(definition, dict) else None
    if kind not in _STEP_KEYS:
        similar = misspelt(name, names)
        meant = f'; did you mean step {similar}?' if similar and kind is None else ''
        raise CASTError(
            f'step {name} is of kind {kind!r}; the kinds are {", ".join(_STEP_KEYS)}{meant}'
        )
    required, optional = _STEP_KEYS[kind]
    given = definition.keys() - {'kind'}
    unknown = sorted(given - required - optional)
    if unknown:
        raise CASTError(
            f'step {name} (kind {kind}) does not know '
            + '; '.join(f'{key}, {hint(key, sorted(required | optional))}' for key in unknown)
        )
    if required - given:
        raise CASTError(f'step {name} (kind {kind}) lacks {", ".join(sorted(required - given))}')


def check_arguments(name: str, definition: dict) -> None:
    """Raises CASTError where the function of a step takes no such arguments.

    Args:
        name: of the step.
        definition: its settings, with the variables in them.
    """
    if definition['kind'] == 'call':
        _check_call(name, definition['function'], definition.get('kwargs') or {})
    elif definition['kind'] in ('folds', 'thresholds'):
        _check_held_out(name, definition)
    elif definition['kind'] == 'pseudo_label':
        options = {key: definition[key] for key in PSEUDO_LABEL_OPTIONS if key in definition}
        _check_types(f'step {name}:', generate_pseudo_labels, options)


def _check_held_out(name: str, definition: Mapping[str, Any]) -> None:
    """Raises CASTError where a number of a step that holds images out is out of range."""
    for key in ('fewest_images', 'fewest_objects'):
        value = definition.get(key, 1)
        if not _fits(value, int) or value < 1:
            raise CASTError(f'step {name}: {key} is {value!r}: give a number from 1')
    fraction = definition.get('fraction', 1)
    if not _fits(fraction, float) or not 0 < fraction <= 1:
        raise CASTError(f'step {name}: fraction is {fraction!r}: give a number above 0, up to 1')
    lowest = definition.get('lowest', 0)
    if not _fits(lowest, float) or not 0 <= lowest < 1:
        raise CASTError(f'step {name}: lowest is {lowest!r}: give a number from 0 to below 1')


def _check_call(name: str, path: str, kwargs: Any) -> None:
    """Raises CASTError where a step of kind 'call' names no function, or gives it other arguments
    than it takes.

    Args:
        name: of the step.
        path: dotted path of the function.
        kwargs: its arguments, templates unresolved; those of one template are not known yet.
    """
    function = find_function(name, path)
    if not callable(function):
        raise CASTError(f'step {name}: {path} is no function')
    if not isinstance(kwargs, dict):
        return
    _check_types(f'step {name}: {path}', function, kwargs)
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # as of some functions in C
        return
    takes_any = any(part.kind is part.VAR_KEYWORD for part in parameters.values())
    known = [
        part.name
        for part in parameters.values()
        if part.kind in (part.POSITIONAL_OR_KEYWORD, part.KEYWORD_ONLY)
    ]
    problems = [f'takes no {key}; {hint(key, known)}' for key in kwargs if key not in known]
    missing = [key for key in known if key not in kwargs and parameters[key].default is _EMPTY]
    problems = ([] if takes_any else problems) + [f'needs {key}' for key in missing]
    if problems:
        raise CASTError(f'step {name}: {path} {"; ".join(problems)}: correct its kwargs')


def _check_types(place: str, function: Callable, arguments: Mapping[str, Any]) -> None:
    try:
        types = get_type_hints(function)
    except (NameError, TypeError):  # names that are there for type checkers alone
        return
    problems = [
        f'{key} is {value!r}, which is no {inspect.formatannotation(types[key])}'
        for key, value in arguments.items()
        if key in types and not _fits(value, types[key])
    ]
    if problems:
        raise CASTError(f'{place} {"; ".join(problems)}')


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value may be an argument of an annotated type, of which plain ones are known."""
    if isinstance(value, str) and '{' in value:  # a template, whose value is not known yet
        return True
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(kind))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if get_origin(kind) is Sequence:
        return isinstance(value, (list, tuple))
    if kind in (str, bool, NoneType):
        return isinstance(value, kind)
    return value is not None or not (isinstance(kind, type) or get_origin(kind))


def check_sizes(transform: Any, place: str) -> None:
    """Raises CASTError where a size in pixels, of the options of a transform, is none."""
    options = transform if isinstance(transform, dict) else {}
    for key in ('scale', 'crop_size'):
        size = options.get(key)
        if not isinstance(size, (list, tuple)) or 'crop_type' in options:
            continue
        for side in size:
            known = not isinstance(side, (str, list, tuple))
            if known and not (_fits(side, int) and side > 0):
                raise CASTError(
                    f'{place}.{key} is {size}: sizes in pixels are whole numbers above 0, so '
                    f'correct {side}'
                )


def check_output(step: str, definition: dict, output: str, user: str) -> None:
    """Raises CASTError where a step of this kind never leaves an output."""
    outputs = _OUTPUTS.get(definition['kind'])
    if output and outputs is not None and output not in outputs:
        raise CASTError(
            f'{user} uses {{{step}.{output}}}, but a {definition["kind"]} step has no output '
            f'{output}; {hint(output, outputs)}'
        )
