"""The kinds of steps a pipeline can have, and how each is run."""
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmcast.errors import CASTError
from .checks import check_config_data
from .runs import latest_sound_checkpoint, test_run, train_run

# What a pseudo_label step hands on to generate_pseudo_labels.
_OPTIONS = ('score_floor', 'device', 'limit', 'strict', 'flip', 'scales', 'confidence', 'num_workers')
# What a step of each kind must and may say, besides name and kind; a misspelt key is not to be ignored.
_KEYS = dict(
    call=({'function'}, {'kwargs'}),
    train=({'config'}, {'load_from', 'cfg_options'}),
    test=({'config', 'checkpoint'}, {'cfg_options'}),
    pseudo_label=({'config', 'checkpoint', 'ann_file', 'img_dir'}, {*_OPTIONS, 'cfg_options'}),
)
ANNOTATIONS = 'annotations.json'
# Kinds that only rank 0 of a distributed run does.
ONE_PROCESS = ('call',)


@dataclass
class Step:
    """A step with its templates resolved, ready to run.

    ``config`` is its whole MMEngine config (None for 'call'), ``folder`` its own directory.
    """
    name: str
    definition: dict
    folder: Path
    config: Config | None = None

    @property
    def kind(self) -> str:
        return self.definition['kind']


@dataclass
class StepResult:
    """What a step leaves for later steps (``outputs``) and for the summary."""
    outputs: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    parameters: int | None = None


def check_definition(step: dict) -> None:
    """Raises CASTError where a step of a pipeline config has unknown or missing keys."""
    name, kind = step.get('name'), step.get('kind')
    if not isinstance(name, str) or not name.isidentifier():
        raise CASTError(f'a step needs a name of letters, digits and _, not {name!r}; correct `steps`')
    if kind not in _KEYS:
        raise CASTError(f'step {name} is of kind {kind!r}; the kinds are {", ".join(_KEYS)}')
    required, optional = _KEYS[kind]
    given = step.keys() - {'name', 'kind'}
    if required - given:
        raise CASTError(f'step {name} (kind {kind}) lacks {", ".join(sorted(required - given))}')
    if given - required - optional:
        raise CASTError(
            f'step {name} (kind {kind}) does not know {", ".join(sorted(given - required - optional))}; '
            f'it takes {", ".join(sorted(required | optional))}')


def load_config(path: Path) -> Config:
    """Reads an MMEngine config.

    Raises:
        CASTError: there is none, or it is no valid config; MMEngine's message may be many lines.
    """
    if not path.is_file():
        raise CASTError(f'config {path} not found; give the path of an existing config')
    try:
        return Config.fromfile(str(path))
    except Exception as error:  # a config is a program: any error of its author can surface here
        raise CASTError(f'config {path} cannot be read: {error}') from error


def step_config(definition: dict, config_dir: Path, options: dict, seed: int | None,
                amp: bool) -> Config | None:
    """The whole config of a train, test or pseudo_label step; None for a call.

    Args:
        definition: resolved step; its ``cfg_options`` win over ``options``.
        config_dir: folder that ``definition['config']`` is relative to.
        options: the pipeline's ``step_options``.
    """
    if definition['kind'] == 'call':
        return None
    config = load_config(config_dir / definition['config'])
    config.merge_from_dict(options)
    config.merge_from_dict(definition.get('cfg_options', {}))
    if definition['kind'] != 'train':
        config.load_from = None  # the step's checkpoint counts
    elif definition.get('load_from'):
        config.load_from = definition['load_from']
    if seed is not None:
        config.randomness = dict(config.get('randomness', {}), seed=seed)
    if amp and definition['kind'] == 'train':
        use_amp(config)
    return config


def use_amp(config: Config) -> None:
    """Switches a training config to automatic mixed precision, as mmdet's ``--amp`` does."""
    config.optim_wrapper.type = 'AmpOptimWrapper'
    config.optim_wrapper.setdefault('loss_scale', 'dynamic')


def has_progress(step: Step) -> bool:
    """Whether an interrupted step left something that going on from would mix with changed settings."""
    if step.kind == 'train':
        return any(step.folder.glob('*.pth'))
    if step.kind == 'pseudo_label':
        return any(path.name != 'fingerprint.json' for path in step.folder.iterdir())
    return False


def run_step(step: Step, launcher: str) -> StepResult:
    """Runs a step, or goes on with it where it was interrupted; on every rank unless in ``ONE_PROCESS``."""
    if step.config is not None:
        step.config.merge_from_dict(
            dict(work_dir=str(step.folder), launcher=launcher, experiment_name=step.name))
    return _RUNNERS[step.kind](step)


def _run_call(step: Step) -> StepResult:
    module, _, name = step.definition['function'].rpartition('.')
    try:
        function: Callable = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise CASTError(
            f'step {step.name}: function {step.definition["function"]} not found ({error})') from error
    return StepResult(outputs=dict(function(**step.definition.get('kwargs', {})) or {}))


def _run_train(step: Step) -> StepResult:
    check_config_data(step.config, ('train_dataloader', 'val_dataloader'))
    result = train_run(step.config, latest_sound_checkpoint(step.folder))
    outputs = dict(checkpoint=str(result.checkpoint))
    if result.best_checkpoint:
        outputs['best_checkpoint'] = str(result.best_checkpoint)
    return StepResult(outputs, result.metrics, result.parameters)


def _run_test(step: Step) -> StepResult:
    check_config_data(step.config, ('test_dataloader',))
    result = test_run(step.config, step.definition['checkpoint'])
    return StepResult({}, result.metrics, result.parameters)


def _run_pseudo_label(step: Step) -> StepResult:
    from mmcast.pseudo_labels import generate_pseudo_labels
    definition = step.definition
    out_file = step.folder / ANNOTATIONS
    options = {key: definition[key] for key in _OPTIONS if key in definition}
    generate_pseudo_labels(step.config, definition['checkpoint'], str(out_file), distributed=True,
                           ann_file=definition['ann_file'], img_dir=definition['img_dir'], **options)
    return StepResult(dict(annotations=str(out_file)))


_RUNNERS = dict(call=_run_call, train=_run_train, test=_run_test, pseudo_label=_run_pseudo_label)
