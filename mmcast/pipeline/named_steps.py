"""Steps that say by name which others they take after, those that hold images out to choose
thresholds of pseudo-labels, or which one stands in for them where they are switched off.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from mmcast.errors import CASTError
from mmcast.pipeline.held_out import ON_VAL, number_of_folds
from mmcast.pipeline.steps import PSEUDO_LABEL_OPTIONS
from mmcast.pipeline.templates import Disabled, names_in
from mmcast.spelling import hint, nearest
from mmcast.typed_values import TEMPLATE

# Values of the keys that steps of these kinds may leave out.
DEFAULTS: dict[str, dict[str, Any]] = dict(
    folds=dict(fraction=0.5, fewest_images=4),
    thresholds=dict(held_out=None, fewest_objects=20, lowest=0.1),
)
# Options of a pseudo_label step that the predictions on held-out images do not share.
_NOT_VIEWS = ('limit', 'strict', 'confidence')
_Definitions = Mapping[str, dict]
_Fill = Callable[[Any], Any]


def names_of(definition: Mapping[str, Any]) -> list[str]:
    """The steps that one takes after."""
    if definition['kind'] == 'folds':
        train = definition['train'] or []
        return [train] if isinstance(train, str) else list(train)
    return [definition['label'], definition['used_by']]


def folds_of(definition: Mapping[str, Any], fill: _Fill) -> int | str | None:
    """Its number of folds, or 'val'; None where a step decides it that has not run.

    Args:
        definition: of the step.
        fill: puts the values of variables into templates.
    """
    value = fill(definition['folds'])
    if isinstance(value, str) and TEMPLATE.search(value):
        return None
    variable = TEMPLATE.fullmatch(str(definition['folds']))
    return number_of_folds(value, f'variables.{variable[1]}' if variable else 'folds')


def take_out_disabled(
    definitions: dict[str, dict], dropped: Set[str], known: Set[str], fill: _Fill
) -> dict[str, Disabled]:
    """Takes the steps whose ``enabled`` is False out of ``definitions``, and ``enabled`` and
    ``instead`` out of the others.

    Args:
        definitions: of all steps by name, not checked; changed in place.
        dropped: names of the steps that were taken out already, for which nothing can stand in.
        known: names of the variables, for the message.
        fill: puts the values of variables into templates.

    Returns:
        Those that were taken out.

    Raises:
        CASTError: ``enabled`` is neither True nor False, or ``instead`` no step that runs.
    """
    switches = {
        name: (step.pop('enabled', True), step.pop('instead', None))
        for name, step in definitions.items()
        if isinstance(step, dict)
    }
    names, disabled = [*definitions, *dropped], {}
    for name, (enabled, instead) in switches.items():
        if instead is not None and instead not in names:
            raise CASTError(f'step {name} has instead={instead!r}; {hint(str(instead), names)}')
        if not _switched_on(name, enabled, known, fill):
            disabled[name] = Disabled(
                _place_of(name, enabled), None if instead in dropped else instead
            )
            del definitions[name]
    return {name: Disabled(one.switch, _stand_in(name, disabled)) for name, one in disabled.items()}


def _switched_on(name: str, enabled: Any, known: Set[str], fill: _Fill) -> bool:
    value = fill(enabled)
    if isinstance(value, bool):
        return value
    unknown = TEMPLATE.findall(value) if isinstance(value, str) else []
    if unknown:
        similar = None if '.' in unknown[0] else nearest(unknown[0], known)
        meant = f'did you mean {similar}?' if similar else 'outputs of steps come too late'
        raise CASTError(
            f'enabled of step {name} is {value!r}, and there is no variable {unknown[0]}; {meant}'
        )
    raise CASTError(
        f'{_place_of(name, enabled)} is {value!r}; True runs step {name}, False does not'
    )


def _place_of(name: str, enabled: Any) -> str:
    """What a person sets to switch a step."""
    variable = TEMPLATE.fullmatch(str(enabled))
    return f'variables.{variable[1]}' if variable else f'enabled of step {name}'


def _stand_in(name: str, disabled: Mapping[str, Disabled]) -> str | None:
    """The step that runs in place of a disabled one, or of the disabled one that would."""
    step, seen = disabled[name].instead, {name}
    while step in disabled:
        if step in seen or disabled[step].instead is None:
            raise CASTError(f'step {step} stands in for step {name}, but is not enabled either')
        seen.add(step)
        step = disabled[step].instead
    return step


def steps_that_are_off(definitions: _Definitions, dropped: Set[str], fill: _Fill) -> set[str]:
    """Names of the steps whose ``folds`` say that there is nothing to do, and of those that nothing
    uses and that are for a step that a config took out, or make folds.

    Args:
        definitions: of all steps by name, not checked.
        dropped: names of the steps that were taken out.
        fill: puts the values of variables into templates.
    """
    off: set[str] = set()
    for kind in ('thresholds', 'folds'):  # the second is for the first
        for name, step in definitions.items():
            if not isinstance(step, dict) or step.get('kind') != kind or 'folds' not in step:
                continue
            idle = folds_of(step, fill) in ((0,) if kind == 'thresholds' else (0, ON_VAL))
            named = {step.get('label'), step.get('used_by')}
            others = [definitions[other] for other in definitions if other not in {name, *off}]
            unused = name not in {each.partition('.')[0] for each in names_in(fill(others))}
            if idle or (unused and (kind == 'folds' or named & dropped)):
                off.add(name)
    return off


def completed(name: str, definitions: _Definitions) -> dict:
    """The definition of a step with the keys that it may leave out, and the config of the step that
    it takes after.

    Raises:
        CASTError: it names no such step.
    """
    definition = definitions[name]
    folds = definition['kind'] == 'folds'
    names = names_of(definition)
    for other, kind in zip(names, ['train'] * len(names) if folds else ['pseudo_label', 'train']):
        if definitions.get(other, {}).get('kind') != kind:
            raise CASTError(
                f'step {name} names {other}, which is no step of kind {kind}; '
                f'{hint(other, definitions)}'
            )
    if not names:
        raise CASTError(f'step {name} names no step to train: give train a list of names')
    config = definitions[names[-1] if folds else names[0]]['config']
    return dict(DEFAULTS[definition['kind']], **definition, config=config)


def parts_of(name: str, definitions: _Definitions, fill: _Fill) -> list[dict]:
    """What a step needs of the definitions of those that it names, see :func:`names_of`."""
    definition = definitions[name]
    if definition['kind'] == 'folds':
        loads = loads_of(definition, definitions, fill)
        return [
            dict(definitions[other], load_from=None) if other in loads else definitions[other]
            for other in names_of(definition)
        ]
    label, reader = (dict(definitions[other]) for other in names_of(definition))
    if folds_of(definition, fill) not in (ON_VAL, None):
        label.pop('checkpoint')
    for key in ('load_from', 'labeled', 'pseudo_labels', 'thresholds'):
        reader.pop(key, None)
    return [label, reader]


def loads_of(
    definition: Mapping[str, Any], definitions: _Definitions, fill: _Fill
) -> dict[str, str]:
    """The earlier one of a 'folds' step's training runs that each starts from, where it does."""
    names = names_of(definition)
    return {
        name: other
        for place, name in enumerate(names)
        for other in names[:place]
        if fill(definitions[name].get('load_from')) == f'{{{other}.checkpoint}}'
    }


def views_of(label: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a pseudo_label step that predictions on held-out images share."""
    names: Sequence[str] = [key for key in PSEUDO_LABEL_OPTIONS if key not in _NOT_VIEWS]
    return {key: label[key] for key in names if key in label}
