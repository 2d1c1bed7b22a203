"""What a run's validations gave, and which of them MMEngine's ``save_best`` kept."""

from pathlib import Path

from mmdet.evaluation import CocoMetric
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmcast.errors import CASTError
from mmcast.models.weights.reading import read_state_dict
from mmcast.training.checkpoints import checkpoint_hook, reached_checkpoint
from mmcast.training.distributed import say

# In the message hub, which checkpoints hold: a resumed run knows all. The metrics of each
# validation, and its iteration. Names that begin with 'val' would be printed with each of them.
_HISTORY, _ITERATIONS = 'history_of_validations', 'iterations_validated'


class ValidationsHook(Hook):
    """Remembers every validation's metrics, and checks that ``save_best`` finds its metric there.

    Raises:
        CASTError: In ``before_train``, if no validation can give a metric of ``save_best``; else in
            the first one that does not.
    """

    priority = 'NORMAL'  # before CheckpointHook, whose own error for this is a KeyError

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
        _append(runner, _HISTORY, scalars(metrics or {}))
        _append(runner, _ITERATIONS, runner.iter)
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


class MissedValidationHook(Hook):
    """Makes up for the validation that a killed run did not finish, before it resumes training.

    A checkpoint is written before the validation of its iteration. Killed in between, or while the
    best checkpoint was written, a run would resume without that validation ever being held, and
    with the name of a best checkpoint that MMEngine had deleted already.
    """

    priority = 'LOWEST'  # after CheckpointHook has looked up the best checkpoint

    def before_train(self, runner: Runner) -> None:
        """Validate what is resumed, where that is due and not known."""
        if runner.iter == 0 or runner.val_loop is None:
            return
        hook = checkpoint_hook(runner)
        if hook is not None and reached_checkpoint(runner, hook).exists():
            # It is written again if the validation is the best one.
            hook.last_ckpt = str(reached_checkpoint(runner, hook))
        lost = _forget_lost_best(runner)
        missed = _is_due(runner) and not is_validated(runner)
        if lost or missed:
            runner.val_loop.run()


def is_validated(runner: Runner) -> bool:
    """Whether the iteration that a run has reached was validated, now or before it was resumed."""
    return runner.iter in runner.message_hub.get_info(_ITERATIONS, [])[-1:]


def latest_metrics(runner: Runner) -> dict[str, float]:
    """Metrics of the latest validation; not-finite ones stay, the summary says so."""
    return next(reversed(runner.message_hub.get_info(_HISTORY, [])), {})


def best_validation(runner: Runner) -> tuple[dict[str, float], Path] | None:
    """Metrics of the best validation and its checkpoint, where ``save_best`` kept one.

    Where it names several metrics, the best by the first of them.
    """
    key, path = next(iter(_best_paths(runner).items()), ('', None))
    if path is None:
        return None
    score = runner.message_hub.get_info(_info(runner, 'best_score', key))
    history = runner.message_hub.get_info(_HISTORY, [])
    if key == 'auto':  # all validations were held before the run was resumed
        key = next((name for found in history for name in found), key)
    found = next((found for found in history if found.get(key) == score), None)
    return found or {key: float(score)}, path


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


def _wanted(runner: Runner) -> list[str]:
    """The metrics by which the best checkpoint is kept."""
    hook = checkpoint_hook(runner)
    return list(hook.key_indicators) if hook is not None and hook.save_best else []


def _append(runner: Runner, name: str, value: object) -> None:
    """To a list in the message hub; a new one, as the old may be in a checkpoint's state."""
    runner.message_hub.update_info(name, [*runner.message_hub.get_info(name, []), value])


def _is_due(runner: Runner) -> bool:
    """Whether the loop would have validated right after what a run is resumed from."""
    loop = runner.train_loop
    loop._decide_current_val_interval()
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    now, end = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
    return now >= loop.val_begin and (now % loop.val_interval == 0 or now == end)


def _info(runner: Runner, name: str, key: str) -> str:
    """What MMEngine calls a fact about the best checkpoint by some metric, in its message hub."""
    return name if len(_wanted(runner)) == 1 else f'{name}_{key}'


def _best_paths(runner: Runner) -> dict[str, Path | None]:
    """By metric, the best checkpoint where it is now: the folder may have moved since."""
    paths = {}
    for key in _wanted(runner):
        path = runner.message_hub.get_info(_info(runner, 'best_ckpt', key), None)
        paths[key] = Path(checkpoint_hook(runner).out_dir, Path(path).name) if path else None
    return paths


def _forget_lost_best(runner: Runner) -> bool:
    """Lets the next validation be the best where the file of the best so far is not there or
    damaged.

    Returns:
        Whether there was such a file.
    """
    hook, lost = checkpoint_hook(runner), False
    for key, path in _best_paths(runner).items():
        if path is None:
            continue
        now: str | None = str(path)
        try:
            read_state_dict(path, with_base=False)
        except CASTError as error:
            say(f'warning: the best checkpoint by {key} is lost ({error}); validating anew')
            for name in ('best_score', 'best_ckpt'):
                runner.message_hub.runtime_info.pop(_info(runner, name, key), None)
            now, lost = None, True
        if len(_wanted(runner)) == 1:
            hook.best_ckpt_path = now
        else:
            hook.best_ckpt_path_dict[key] = now
    return lost


def _options(runner: Runner) -> dict:
    """Of the checkpoint hook, those that say what is better."""
    hook = checkpoint_hook(runner)
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
