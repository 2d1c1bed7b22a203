"""The kinds of steps a pipeline can have, and how each is run."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmcast.configs import import_custom_modules, load_config, network_settings
from mmcast.data.config_data import check_config_data
from mmcast.errors import CASTError
from mmcast.pipeline.held_out import choose_held_out, train_folds
from mmcast.pseudo_labels.generate import generate_pseudo_labels
from mmcast.training.checkpoints import checkpoint_folder, owns, resumable_checkpoint
from mmcast.training.runner import test_run, train_run

# What a pseudo_label step passes to generate_pseudo_labels.
PSEUDO_LABEL_OPTIONS = (
    'score_floor',
    'device',
    'limit',
    'strict',
    'flip',
    'scales',
    'confidence',
    'views_per_batch',
    'num_workers',
)
ANNOTATIONS = 'annotations.json'
# Kinds that only rank 0 of a distributed run does.
ONE_PROCESS = ('call',)


@dataclass
class Step:
    """A step with its templates resolved, ready to run.

    ``config`` is its whole MMEngine config (None for 'call'), ``folder`` its own directory, and
    ``runs`` the configs of the training runs of a 'folds' step, of which the last is ``config``.
    """

    name: str
    definition: dict
    folder: Path
    config: Config | None = None
    runs: list[Config] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return self.definition['kind']

    @property
    def settings(self) -> dict:
        """The config as a dict, without the folder that it is run in; of a function that is called
        with ``configs``, their networks.
        """
        content = self.config.to_dict() if self.config is not None else {}
        if self.runs[:-1]:
            content['runs'] = [config.to_dict() for config in self.runs[:-1]]
        kwargs = self.definition.get('kwargs') or {}
        configs = kwargs.get('configs') or ()
        for name in configs.values() if isinstance(configs, dict) else configs:
            config = load_config(name, kwargs.get('config_dir', ''))
            content.setdefault('networks', {})[name] = network_settings(config).to_dict()
        return {key: value for key, value in content.items() if key != 'work_dir'}


@dataclass
class StepResult:
    """What a step leaves for later steps (``outputs``) and for the summary."""

    outputs: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    parameters: int | None = None


def has_progress(step: Step) -> bool:
    """Whether an interrupted step left something that must not mix with changed settings."""
    if step.kind == 'train' and step.config is not None:
        folder = checkpoint_folder(step.config, step.folder)
        return owns(step.folder, folder) and any(folder.glob('*.pth'))
    if step.kind in ('pseudo_label', 'folds', 'thresholds') and step.folder.exists():
        return any(path.name != 'fingerprint.json' for path in step.folder.iterdir())
    return False


def run_step(step: Step, launcher: str) -> StepResult:
    """Runs a step, or resumes an interrupted one; on every rank unless in ``ONE_PROCESS``."""
    configs = step.runs or ([] if step.config is None else [step.config])
    for config in configs:
        import_custom_modules(config)  # rank 0 read the config, the others got it from there
        config.merge_from_dict(
            dict(work_dir=str(step.folder), launcher=launcher, experiment_name=step.name)
        )
    return _RUNNERS[step.kind](step)


def find_function(name: str, path: str) -> Callable:
    """The function of a step of kind 'call'.

    Raises:
        CASTError: there is none.
    """
    module, _, function = path.rpartition('.')
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise CASTError(f'step {name}: function {path} not found ({error})') from error


def _run_call(step: Step) -> StepResult:
    function = find_function(step.name, step.definition['function'])
    return StepResult(outputs=dict(function(**step.definition.get('kwargs', {})) or {}))


def _run_train(step: Step) -> StepResult:
    check_config_data(step.config, ('train_dataloader', 'val_dataloader'))
    result = train_run(step.config, resumable_checkpoint(step.config, step.folder))
    outputs = dict(checkpoint=str(result.checkpoint))
    if result.best_checkpoint:
        outputs['best_checkpoint'] = str(result.best_checkpoint)
    return StepResult(outputs, result.metrics, result.parameters)


def _run_test(step: Step) -> StepResult:
    check_config_data(step.config, ('test_dataloader',))
    result = test_run(step.config, step.definition['checkpoint'])
    return StepResult({}, result.metrics, result.parameters)


def _run_pseudo_label(step: Step) -> StepResult:
    definition = step.definition
    out_file = step.folder / ANNOTATIONS
    options = {key: definition[key] for key in PSEUDO_LABEL_OPTIONS if key in definition}
    generate_pseudo_labels(
        step.config,
        definition['checkpoint'],
        str(out_file),
        distributed=True,
        ann_file=definition['ann_file'],
        img_dir=definition['img_dir'],
        **options,
    )
    return StepResult(dict(annotations=str(out_file)))


def _run_folds(step: Step) -> StepResult:
    return StepResult(train_folds(step.runs, step.definition, step.folder))


def _run_thresholds(step: Step) -> StepResult:
    return StepResult(choose_held_out(step.config, step.definition, step.folder))


_RUNNERS = dict(
    call=_run_call,
    train=_run_train,
    test=_run_test,
    pseudo_label=_run_pseudo_label,
    folds=_run_folds,
    thresholds=_run_thresholds,
)
