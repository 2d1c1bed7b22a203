"""What a run's validations gave, and which of them MMEngine's ``save_best`` kept."""

from pathlib import Path

from mmdet.evaluation import CocoMetric
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmcast.errors import CASTError

_HISTORY = 'validations'  # in the message hub, which checkpoints hold: a resumed run knows all


class ValidationsHook(Hook):
    """Remembers every validation's metrics, and checks that ``save_best`` finds its metric there.

    Attributes:
        metrics: Scalars of the latest validation; not-finite ones stay, the summary says so.
        iteration: Of the latest validation; -1 if there was none in this process.

    Raises:
        CASTError: In ``before_train``, if no validation can give a metric of ``save_best``; else in
            the first one that does not.
    """

    priority = 'NORMAL'  # before CheckpointHook, whose own error for this is a KeyError

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.iteration = -1

    def before_train(self, runner: Runner) -> None:
        """Check what can be known of ``save_best``."""
        for key in _wanted(runner):
            if runner.val_loop is None:
                raise CASTError(
                    f'default_hooks.checkpoint.save_best={key!r} needs a validation; set val_cfg, '
                    'val_dataloader and val_evaluator, or save_best=None'
                )
            sources = runner.val_loop.evaluator.metrics
            if key != 'auto' and not any(_can_give(metric, key) for metric in sources):
                names = ', '.join(_keys_of(metric) for metric in sources)
                raise CASTError(
                    f'default_hooks.checkpoint.save_best={key!r} is not a metric of val_evaluator, '
                    f'which gives {names}'
                )

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Remember; an empty validation, of a network that found nothing, is nobody's best."""
        self.metrics, self.iteration = scalars(metrics or {}), runner.iter
        history = runner.message_hub.get_info(_HISTORY, [])
        runner.message_hub.update_info(_HISTORY, [*history, self.metrics])
        if not metrics:
            return
        for key in _wanted(runner):
            if key == 'auto':
                check_save_best(dict(_options(runner), save_best=next(iter(metrics))))
            elif key not in metrics:
                raise CASTError(
                    f'default_hooks.checkpoint.save_best={key!r}: the validation gave '
                    f'{", ".join(metrics)}; choose one of them'
                )

    def best(self, runner: Runner) -> tuple[dict[str, float], Path] | None:
        """Metrics of the best validation and its checkpoint, where ``save_best`` kept one.

        Where it names several metrics, the best by the first of them.
        """
        hook = _checkpoint_hook(runner)
        if hook is None or not hook.save_best:
            return None
        key, several = hook.key_indicators[0], len(hook.key_indicators) > 1
        path = hook.best_ckpt_path_dict[key] if several else hook.best_ckpt_path
        if not path:
            return None
        score = runner.message_hub.get_info(f'best_score_{key}' if several else 'best_score')
        history = runner.message_hub.get_info(_HISTORY, [])
        metrics = next((found for found in history if found.get(key) == score), {key: float(score)})
        return metrics, Path(hook.out_dir, Path(path).name)  # the folder may have moved since


def scalars(metrics: dict) -> dict[str, float]:
    """The metrics that are numbers."""
    return {
        key: float(value)
        for key, value in metrics.items()
        if isinstance(value, (int, float)) or getattr(value, 'ndim', None) == 0
    }


def check_save_best(options: dict) -> None:
    """Raises CASTError where MMEngine would refuse the ``save_best`` and ``rule`` of a
    ``CheckpointHook``.

    Args:
        options: The hook's config.
    """
    if not options.get('save_best'):
        return
    try:
        HOOKS.build(dict(options))
    except (AssertionError, KeyError, ValueError) as error:
        raise CASTError(f'default_hooks.checkpoint: {error.args[0]}') from error


def _checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)


def _wanted(runner: Runner) -> list[str]:
    """The metrics by which the best checkpoint is kept."""
    hook = _checkpoint_hook(runner)
    return list(hook.key_indicators) if hook is not None and hook.save_best else []


def _options(runner: Runner) -> dict:
    """Of the checkpoint hook, those that say what is better."""
    hook = _checkpoint_hook(runner)
    return dict(
        type=CheckpointHook,
        rule=hook.rules[0],
        greater_keys=list(hook.greater_keys),
        less_keys=list(hook.less_keys),
    )


def _can_give(metric: BaseMetric, key: str) -> bool:
    """Whether a metric may return a key; False only where that is certain."""
    if not metric.prefix:
        return True
    name = key.removeprefix(f'{metric.prefix}/')
    if name == key:
        return False
    if not isinstance(metric, CocoMetric) or metric.classwise:
        return True
    return any(name.startswith(part) for part in _names_of(metric))


def _names_of(metric: CocoMetric) -> list[str]:
    """What its keys begin with, by kind."""
    return ['AR' if kind.startswith('proposal') else f'{kind}_mAP' for kind in metric.metrics]


def _keys_of(metric: BaseMetric) -> str:
    """For a message."""
    if isinstance(metric, CocoMetric) and metric.prefix:
        return ', '.join(f'{metric.prefix}/{name}' for name in _names_of(metric))
    return f'{metric.prefix}/*' if metric.prefix else type(metric).__name__
