"""One ordinary MMEngine run, trained or tested, with the care that an unattended pipeline needs."""
import itertools
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmcast.errors import CASTError
from .curves import read_curves

# Parts that only training has: a checkpoint may have them or not, and the model's size is without them.
TRAINING_ONLY = ('pixel_contrast.', 'teacher.')
_run_number = itertools.count()


@dataclass
class RunResult:
    """What one run gave.

    ``metrics`` are the last validation's scalars, or the best one's where the config saves its best
    checkpoint; ``parameters`` is the size of the deployed model.
    """
    metrics: dict[str, float]
    parameters: int
    checkpoint: Path
    best_checkpoint: Path | None = None


@dataclass
class _LastValidation(Hook):
    """Remembers the metrics of the latest validation and the iteration they belong to."""
    metrics: dict[str, float] = field(default_factory=dict)
    iteration: int = -1

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self.metrics, self.iteration = dict(metrics or {}), runner.iter


class _TerseRunner(Runner):
    """Shows the lines that a person follows a run by; dumps of configs and parameters go to the log file alone."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_short)
        return logger


def _is_short(record: logging.LogRecord) -> bool:
    message = record.getMessage().strip()
    return record.levelno > logging.INFO or not ('\n' in message or message.startswith('paramwise_options'))


def train_run(cfg: Config, resume_from: Path | None = None) -> RunResult:
    """Trains as the config says.

    Args:
        cfg: an MMEngine config with ``work_dir``.
        resume_from: a checkpoint of this very run to go on from.

    Raises:
        CASTError: ``load_from`` is not a sound checkpoint of this model, or the batch cannot be divided.
    """
    if resume_from:
        cfg.merge_from_dict(dict(resume=True, load_from=str(resume_from)))
    if cfg.get('divide_batch_size'):
        divide_batch_size(cfg.train_dataloader, get_world_size())
    runner = build_runner(cfg)
    if cfg.get('load_from'):
        verify_weights(runner.model, cfg.load_from, () if resume_from else cfg.get('new_parameters', ()))
    last = _LastValidation()
    runner.register_hook(last)
    runner.train()
    # Killed between its last checkpoint and its last validation, a run resumes with nothing left to train.
    if cfg.get('val_cfg') is not None and last.iteration != runner.iter:
        last.metrics = runner.val()
    folder = Path(cfg.work_dir)
    checkpoint = folder / Path((folder / 'last_checkpoint').read_text().strip()).name
    result = RunResult(_floats(last.metrics), count_parameters(runner.model), checkpoint)
    key = cfg.get('default_hooks', {}).get('checkpoint', {}).get('save_best')
    if key:
        result.metrics, step = best_validation(folder, key)
        result.best_checkpoint = next(folder.glob(f'best_{key.replace("/", "_")}_*_{step}.pth'), None)
    return result


def test_run(cfg: Config, checkpoint: str) -> RunResult:
    """Tests a checkpoint on the config's test set.

    Raises:
        CASTError: it is not a sound checkpoint of this model.
    """
    cfg.load_from = str(checkpoint)
    cfg.resume = False
    runner = build_runner(cfg)
    verify_weights(runner.model, cfg.load_from)
    return RunResult(_floats(runner.test()), count_parameters(runner.model), Path(checkpoint))


def build_runner(cfg: Config) -> Runner:
    """A Runner that shares no log, message hub or visualizer with an earlier one of this process."""
    name = cfg.get('experiment_name') or Path(cfg.filename or 'run').stem
    cfg.experiment_name = f'{name}_{next(_run_number)}'
    if cfg.get('visualizer'):
        cfg.visualizer.name = cfg.experiment_name  # of the same name it would be the earlier run's
    logger = cfg.get('default_hooks', {}).get('logger')
    if logger and not cfg.get('log_processor', {}).get('by_epoch', True):
        logger.setdefault('log_metric_by_epoch', False)  # else all validations are logged as of step 0
    if not torch.cuda.is_available() and cfg.get('launcher', 'none') != 'none':
        cfg.setdefault('model_wrapper_cfg', dict(  # MMEngine's default one insists on a GPU
            type='MMDistributedDataParallel', device_ids=None,
            find_unused_parameters=cfg.get('find_unused_parameters', False)))
    if not torch.cuda.is_available() and cfg.get('optim_wrapper', {}).get('type') == 'AmpOptimWrapper':
        use_full_precision(cfg.optim_wrapper)
    return _TerseRunner.from_cfg(cfg)


def use_full_precision(optim_wrapper: dict) -> None:
    """Makes an ``AmpOptimWrapper``'s config an ``OptimWrapper``'s, in place; MMEngine's needs a GPU."""
    optim_wrapper['type'] = 'OptimWrapper'
    for option in ('dtype', 'loss_scale', 'use_fsdp'):
        optim_wrapper.pop(option, None)
    say('no GPU: training in full precision')


def divide_batch_size(loader: dict, processes: int) -> None:
    """Turns a training loader's batch size from that of all processes together into that of one, in place.

    A config with ``divide_batch_size = True`` then takes the same steps on any number of processes; without it,
    batch sizes are per process, as everywhere in OpenMMLab.

    Raises:
        CASTError: the processes cannot share the batch evenly, labeled and pseudo-labeled images alike.
    """
    share = processes * sum(loader.sampler.get('source_ratio', [1]))
    for part in (loader, loader.sampler):
        if 'batch_size' in part:
            if processes > 1 and part['batch_size'] % share:
                raise CASTError(
                    f'{processes} processes cannot share batches of {part["batch_size"]} evenly: start another '
                    f'number of processes, or make train_dataloader.batch_size a multiple of {share}')
            part['batch_size'] //= processes


def best_validation(folder: Path, key: str) -> tuple[dict[str, float], int]:
    """The scalars of a run's validation with the largest ``key`` and its step, from the run's logs.

    Raises:
        CASTError: no validation logged it.
    """
    curves = read_curves(folder)
    points = [(value, step) for step, value in curves.get(key, []) if math.isfinite(value)]
    if not points:
        raise CASTError(
            f'no validation in {folder} gave {key}; save_best needs a metric of the val_evaluator')
    best = max(points)[1]
    metrics = {name: dict(points)[best] for name, points in curves.items()
               if '/' in name and best in dict(points)}
    return metrics, best


def verify_weights(model: torch.nn.Module, path: str, new_parameters: Sequence[str] = ()) -> None:
    """Loads a whole model's checkpoint without running code in it, and insists that it fits.

    MMEngine loads with ``strict=False`` and only logs what did not fit. Keys that only training has may be
    absent on either side. ``Runner`` loads the same file again at its own time, after ``init_weights``.

    Args:
        model: to be loaded into.
        path: of the checkpoint.
        new_parameters: beginnings of names in the network (a config's ``new_parameters``) that need not be in
            the checkpoint, or not in this shape, and start at random: the class head for other classes, say.

    Raises:
        CASTError: unreadable, or names or shapes differ; names the first keys and the cure.
    """
    model = model.module if is_model_wrapper(model) else model
    from mmcast.models.checkpoints import describe_mismatch  # not above: mmcast.models imports this module
    left_out = (*new_parameters, *(f'detector.{name}' for name in new_parameters))
    state = {key: value for key, value in _read_weights(path).items() if not key.startswith(left_out)}
    cure = 'give a checkpoint of this model, or the config that the checkpoint was trained with'
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        difference = describe_mismatch(model.state_dict(), state)
        raise CASTError(f'{path} is a checkpoint of another architecture ({difference}); {cure}') from error
    unfit = {'missing': _needed(missing, left_out), 'unknown': _needed(unexpected)}
    problems = [f'{len(keys)} keys {kind}, such as {", ".join(keys[:3])}' for kind, keys in unfit.items() if keys]
    if problems:
        raise CASTError(f'{path} is a checkpoint of another architecture ({"; ".join(problems)}); {cure}')


def latest_sound_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run that can be read; a half-written one is passed over with a warning."""
    numbered = [(int(match[1]), path) for path in folder.glob('*.pth')
                if (match := re.fullmatch(r'(?:iter|epoch)_(\d+)', path.stem))]
    for _, path in sorted(numbered, reverse=True):
        try:
            _read_weights(path)
        except CASTError as error:
            say(f'warning: {error}; trying the one before')
        else:
            return path
    if numbered:
        say(f'warning: no checkpoint in {folder} can be read; starting anew')
    return None


def count_parameters(model: torch.nn.Module) -> int:
    """Parameters of the deployed model, without what only training has."""
    model = model.module if is_model_wrapper(model) else model
    return sum(value.numel() for name, value in model.named_parameters()
               if not name.startswith(TRAINING_ONLY))


def say(line: str) -> None:
    """Prints a line at once, on the main process only."""
    if is_main_process():
        print(line, flush=True)


def _read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    from mmcast.models.checkpoints import read_state_dict
    path = str(path)
    if path.startswith(('http://', 'https://')):
        url, path = path, Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(path).path).name)
        if not path.exists():  # MMEngine's cache too, so it is downloaded once
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path))
    return read_state_dict(path)


def _needed(keys: list[str], left_out: tuple[str, ...] = ()) -> list[str]:
    return [key for key in keys if not key.startswith(TRAINING_ONLY + left_out)]


def _floats(metrics: dict) -> dict[str, float]:
    """Scalar metrics only; not-finite ones stay, the summary says so."""
    return {key: float(value) for key, value in metrics.items()
            if isinstance(value, (int, float)) or getattr(value, 'ndim', None) == 0}
