"""Settings that replace those of a config: keys that nothing would read are refused, as MMEngine
takes any.

What is known at a place of a config: the keys that are there, what the class named there takes,
and what MMEngine reads there. A dict without a class, such as ``test_cfg``, takes any key that is
not a misspelling of another one.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import Registry
from mmengine.runner import (
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    LogProcessor,
    Runner,
    TestLoop,
    ValLoop,
)
from mmengine.runner.utils import set_random_seed
from torch.utils.data import DataLoader

from mmcast import registry
from mmcast.errors import CASTError
from mmcast.spelling import find_misspelt, hint, misspelt
from mmcast.training.batches import merge_run_options
from mmcast.training.distributed import say
from mmcast.typed_values import NO_DEFAULT, Typed, read_like

_DELETE = '_delete_'
_BY_NAME = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
# Texts that stand in the place of a number: of AMP's loss scale, and templates.
_NOT_A_NUMBER = re.compile(r'^(dynamic|auto)$|\{')
# A text is true, whatever it says.
_NO_BOOLEANS = ('yes', 'no', 'on', 'off', 'y', 'n', 't', 'f', 'none', '')

_RUNNER_KEYS = {*inspect.signature(Runner).parameters} - {'cfg'} | {
    # of Runner's methods, which look into the whole config
    'sync_bn', 'compile', 'model_wrapper_cfg', 'find_unused_parameters',
    'activation_checkpointing', 'efficient_conv_bn_eval', 'custom_imports',
    # of mmcast.training.runner
    'divide_batch_size', 'new_parameters',
    # of mmdet's tools
    'tta_model', 'tta_pipeline',
}  # fmt: skip
# What the builders of OpenMMLab take out of a dict before its class sees it.
_OF_BUILDERS = {
    'type', '_scope_', '_delete_', 'name', 'priority', 'override', 'requires_grad', 'eps',
    'inplace', 'constructor', 'paramwise_cfg', 'convert_to_iter_based', 'init_cfg', 'train_cfg',
    'test_cfg',
}  # fmt: skip
# What torch modules and OpenMMLab's take, whatever they do.
_OF_ANY_MODULE = {'init_cfg', 'data_preprocessor'}
_LOADER = {
    *inspect.signature(DataLoader).parameters,
    'dataset',
    'batch_sampler',
    'num_batch_per_epoch',
}
# Dicts that say no class, by the key they stand under.
_PARTS: dict[str, Callable[[], set[str]]] = dict(
    train_cfg=lambda: (
        _parameters(EpochBasedTrainLoop)[0] | _parameters(IterBasedTrainLoop)[0] | {'by_epoch'}
    ),
    val_cfg=lambda: _parameters(ValLoop)[0],
    test_cfg=lambda: _parameters(TestLoop)[0],
    train_dataloader=lambda: _LOADER,
    val_dataloader=lambda: _LOADER,
    test_dataloader=lambda: _LOADER,
    log_processor=lambda: _parameters(LogProcessor)[0],
    randomness=lambda: {*inspect.signature(set_random_seed).parameters},
    auto_scale_lr=lambda: {'enable', 'base_batch_size'},
    env_cfg=lambda: {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
)
_DATA = ('DATASETS', 'TRANSFORMS', 'DATA_SAMPLERS')
# Registries by the section of a config that builds from them; other sections, from any.
_REGISTRIES = dict(
    model=('MODELS', 'TASK_UTILS', 'WEIGHT_INITIALIZERS'),
    train_dataloader=_DATA,
    val_dataloader=_DATA,
    test_dataloader=_DATA,
    optim_wrapper=('OPTIM_WRAPPERS', 'OPTIMIZERS', 'OPTIM_WRAPPER_CONSTRUCTORS'),
    param_scheduler=('PARAM_SCHEDULERS',),
    default_hooks=('HOOKS',),
    train_cfg=('LOOPS',),
    val_evaluator=('METRICS', 'EVALUATOR'),
    test_evaluator=('METRICS', 'EVALUATOR'),
)


@dataclass(frozen=True)
class Finding:
    """An option that does nothing or cannot be merged.

    Attributes:
        key: the dotted key.
        message: what is wrong, and the nearest that is right.
        breaks: it cannot be merged at all; else it is a key that nothing reads.
    """

    key: str
    message: str
    breaks: bool = False

    def __str__(self) -> str:
        return f'{self.key}: {self.message}'


def override(config: Config, options: Mapping[str, Any] | None, place: str) -> None:
    """Merges options into the config of a run, in place.

    Args:
        config: an MMEngine config.
        options: dotted keys -> values, of which ``Typed`` ones are read as MMEngine's.
        place: what the config is, for the message.

    Raises:
        CASTError: there are keys that nothing would read; names all.
    """
    check_names_of_run(config)
    given = nested(_read_typed(options or {}))
    refuse(place, find_unknown(config, given))
    for key in given:
        if key not in _RUNNER_KEYS:
            say(
                f'warning: {place}: {key} is a name of the config file: what was made from it when '
                'the file was read stays as it is'
            )
    merge_run_options(config, given)


def check_names_of_run(config: Config) -> None:
    """Raises CASTError where the file of a run's config misspells names that a Runner reads."""
    names = filter(str.islower, config)  # others are classes that a config imports
    problems = find_misspelt(names, sorted(_RUNNER_KEYS))
    if problems:
        raise CASTError(f'{config.filename}: {"; ".join(problems)}')


def refuse(place: str, findings: Iterable[Finding]) -> None:
    """Raises CASTError where there are findings; names all."""
    lines = '; '.join(map(str, findings))
    if lines:
        raise CASTError(f'{place}: {lines}')


def _read_typed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with values in place of what was typed; ``classes`` is a list of texts."""
    return {
        key: read_like(value, NO_DEFAULT, key) if isinstance(value, Typed) else value
        for key, value in options.items()
    }


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with dotted keys as dicts in dicts; a later one wins, and no other one is lost.

    MMEngine's merge forgets ``a.b`` where ``a`` is given too.

    Raises:
        CASTError: one key is a value and holds others.
    """
    result: dict[str, Any] = {}
    for dotted, value in options.items():
        *parents, last = str(dotted).split('.')
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise CASTError(f'{dotted}: {parent} is given as a value too; give one of the two')
        _put(place, {last: value})
    return result


def _put(place: dict, given: Mapping) -> None:
    for key, value in given.items():
        if isinstance(value, Mapping) and isinstance(place.get(key), dict):
            _put(place[key], value)
        else:
            place[key] = _copy(value)


def _copy(value: Any) -> Any:
    return (
        {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value
    )


def find_unknown(config: Config, given: Mapping[str, Any]) -> list[Finding]:
    """The options that would do nothing.

    Args:
        config: an MMEngine config.
        given: what is to be merged into it, see :func:`nested`.
    """
    content = config.to_dict()
    copied = {key: list(_copies(content, key)) for key in given if key not in _RUNNER_KEYS}
    findings = [
        Finding(
            key,
            f'is read by nothing, it was copied when the file was read: set {", ".join(keys[:3])}'
            + (f' and {len(keys) - 3} more' if len(keys) > 3 else ''),
        )
        for key, keys in copied.items()
        if keys
    ]
    rest = {key: value for key, value in given.items() if not copied.get(key)}
    return [*findings, *_find(content, rest, ())]


def _copies(content: dict, key: str) -> Iterator[str]:
    """Dotted keys of equal values: what a name of a config file alone was used for."""
    wanted = content.get(key)
    if wanted is None or isinstance(wanted, bool):
        return

    def search(node: Any, path: tuple[str, ...]) -> Iterator[str]:
        if type(node) is type(wanted) and node == wanted:
            yield '.'.join(path)
        elif isinstance(node, (dict, list, tuple)):
            items = node.items() if isinstance(node, dict) else enumerate(node)
            for name, item in items:
                yield from search(item, (*path, str(name)))

    for name, node in content.items():
        if name in _RUNNER_KEYS:
            yield from search(node, (name,))


def _find(node: Any, given: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Finding]:
    """The findings of what is to be merged into a part of a config, which stands at ``path``."""
    if given.get(_DELETE):
        return
    for key, value in given.items():
        here = (*path, str(key))
        if isinstance(node, (list, tuple)):
            child, problem = _item(node, str(key), value)
        elif key in node:
            child, problem = node[key], None
        else:
            child, problem = None, _new_key(node, given, str(key), path)
            if not problem and isinstance(value, Mapping) and value and all(map(_is_index, value)):
                yield Finding('.'.join(here), 'is no list here, so it has no items', True)
        if problem:
            yield Finding('.'.join(here), problem, isinstance(node, (list, tuple)))
        elif not isinstance(value, Mapping):
            if wrong := _wrong_value(child, value):
                yield Finding('.'.join(here), wrong, True)
        elif value.get(_DELETE):
            continue
        elif isinstance(child, (dict, list)):
            yield from _find(child, value, here)
        elif isinstance(node, (list, tuple)) or key in node:
            wrong = f'is {child!r}, which has no {next(iter(value), "key")}: give it whole'
            yield Finding('.'.join(here), wrong, True)


def _wrong_value(old: Any, new: Any) -> str | None:
    """What is wrong with a value in the place of another; None if nothing is."""
    if isinstance(old, bool):
        if str(new).lower() in _NO_BOOLEANS:
            return f'is {old}: give True or False, not {new}'
    elif isinstance(old, (int, float)) and isinstance(new, str) and not _NOT_A_NUMBER.search(new):
        return f'is {old}: give a number, not {new}'
    return None


def _is_index(key: Any) -> bool:
    return str(key).isdigit()


def _item(node: list | tuple, key: str, value: Any) -> tuple[Any, str | None]:
    """An item of a list by its index, or what is wrong with it."""
    if not key.isdigit():
        return None, f'is not there: give the number of an item of the list, 0 to {len(node) - 1}'
    if int(key) >= len(node):
        return None, f'is not there, as the list has the items 0 to {len(node) - 1}'
    if not isinstance(value, Mapping) or isinstance(node, tuple):
        return None, 'cannot be set alone: give the list whole'
    return node[int(key)], None


def _new_key(
    node: Mapping[str, Any], given: Mapping[str, Any], key: str, path: tuple[str, ...]
) -> str | None:
    """What is wrong with a key that a part of a config does not have; None if nothing is."""
    known, closed, what = _known_keys(node, given, path)
    if key in known or (key in _OF_BUILDERS and path):
        return None
    if closed:
        # The names of a config's file are read by nothing either.
        return f'{what}; {hint(key, sorted({*known, *node} if path else known))}'
    similar = misspelt(key, sorted({*known, *node}))
    return f'is not there; did you mean {similar}?' if similar else None


def _known_keys(
    node: Mapping[str, Any], given: Mapping[str, Any], path: tuple[str, ...]
) -> tuple[set[str], bool, str]:
    """Keys that a part of a config may have, whether these are all, and what to say of others."""
    if not path:
        return _RUNNER_KEYS, True, 'nothing reads it'
    types = [part['type'] for part in (given, node) if part.get('type')]
    if types:
        found = [_parameters(cls) for name in types for cls in _classes(name, path[0])]
        names = set().union(*(names for names, _ in found))
        if path == ('optim_wrapper',):
            names |= _parameters(AmpOptimWrapper)[0]  # what --amp makes of it
        closed = bool(found) and all(closed for _, closed in found)
        return names, closed, f'{types[0]} does not take it'
    if len(path) == 1 and path[0] in _PARTS:
        return _PARTS[path[0]](), True, 'nothing reads it'
    return set(), False, ''


def _classes(name: str | type, section: str) -> list[Any]:
    """What a type name stands for in the registries that a section of a config builds from; these
    import what they register where none has the name yet.
    """
    if not isinstance(name, str):
        return [name]
    kinds = _REGISTRIES.get(section) or [kind for kind in dir(registry) if kind.isupper()]
    registries = [getattr(registry, kind) for kind in kinds]
    imported = [
        parent.module_dict.get(name) for child in registries for parent in _with_parents(child)
    ]
    found = [cls for cls in imported if cls] or [each.get(name) for each in registries]
    return [cls for cls in found if cls]


def _with_parents(child: Registry) -> Iterator[Registry]:
    parent: Registry | None = child
    while parent is not None:
        yield parent
        parent = parent.parent


@cache
def _parameters(cls: Any) -> tuple[set[str], bool]:
    """Names of what a class or function takes, and whether these are all.

    A class that takes ``**kwargs`` passes them to its base, or, where that takes next to nothing,
    somewhere else.
    """
    functions = [cls]
    if inspect.isclass(cls):
        bases = [base for base in inspect.getmro(cls) if base is not object]
        functions = [base.__dict__['__init__'] for base in bases if '__init__' in base.__dict__]
    taken = [inspect.signature(function).parameters.values() for function in functions]
    names = [{part.name for part in parts if part.kind in _BY_NAME} - {'self'} for parts in taken]
    ends = [all(part.kind is not part.VAR_KEYWORD for part in parts) for parts in taken]
    end = ends.index(True) if True in ends else None
    closed = end == 0 or bool(end and set().union(*names[1 : end + 1]) - _OF_ANY_MODULE)
    return set().union(*names), closed
