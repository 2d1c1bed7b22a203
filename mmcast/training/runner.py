"""One ordinary MMEngine run, trained or tested, with the care that an unattended pipeline needs."""

import functools
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_world_size, is_main_process, master_only
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from mmcast.checkpoints import describe_not_finite
from mmcast.data.mask_transforms import check_mask_transforms
from mmcast.data.samplers import check_that_it_ends, shares_of_batches
from mmcast.errors import CASTError
from mmcast.files import naming, replace_durably
from mmcast.memory import keep_freed_memory
from mmcast.models.lora import without_adapters
from mmcast.models.weights.loading import count_parameters, load_weights
from mmcast.processes import end_with_parent
from mmcast.spelling import hint
from mmcast.training.batches import check_batch_sizes, divide_batch_size
from mmcast.training.checkpoints import (
    check_filenames,
    checkpoint_folder,
    hook_options,
    keep_only,
    keep_two,
    last_checkpoint,
    part_of,
    remove_parts,
    save_between_epochs,
    save_between_steps,
)
from mmcast.training.curves import number_start
from mmcast.training.distributed import check_sync_bn, say
from mmcast.training.hooks.adapters import AdapterLoadingHook, AdapterSavingHook
from mmcast.training.hooks.loaded_weights import LoadedWeightsHook
from mmcast.training.optimizers import check_optimizer_type, check_parameter_groups
from mmcast.training.predictions import PredictionsFile
from mmcast.training.randomness import SeedIterationsHook
from mmcast.training.repeated_images import RepeatedImagesHook
from mmcast.training.validations import (
    MissedValidationHook,
    ValidationsHook,
    best_validation,
    check_save_best,
    is_validated,
    latest_metrics,
    scalars,
)

_run_number = itertools.count()


@dataclass
class RunResult:
    """What one run gave.

    ``metrics`` are the last validation's scalars, or the best one's where the config saves its best
    checkpoint (of several, the one by the metric that ``save_best`` names first); ``parameters`` is
    the size of the deployed model.
    """

    metrics: dict[str, float]
    parameters: int
    checkpoint: Path
    best_checkpoint: Path | None = None


class CheckedRunner(Runner):
    """Checks that the optimizer moves all that is to learn, that loops end, and that ``sync_bn``
    takes nothing out of the model. Its checkpoints are whole, with finite weights, or not there,
    and its loaders' processes end when it is killed.
    """

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> DataLoader:
        loader = Runner.build_dataloader(*args, **kwargs)
        loader.worker_init_fn = functools.partial(_start_worker, loader.worker_init_fn)
        return loader

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        if self.distributed and self.cfg.get('sync_bn') is not None:
            check_sync_bn(model, self.cfg.sync_bn)
        return super().wrap_model(model_wrapper_cfg, model)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        loop = check_that_it_ends(super().build_train_loop(loop), 'train')
        _weigh_labels(self.model, loop.dataloader)
        return loop

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        return check_that_it_ends(super().build_val_loop(loop), 'val')

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        return check_that_it_ends(super().build_test_loop(loop), 'test')

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        self._check_weights(filename)
        if '://' in str(out_dir):  # an object store has whole objects only
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        part = Path(out_dir, part_of(filename))
        with naming(Path(out_dir, filename), part):
            try:
                super().save_checkpoint(out_dir, part.name, *args, **kwargs)
            except OSError:
                part.unlink(missing_ok=True)  # of a full disk
                raise
            if is_main_process():
                replace_durably(part, Path(out_dir, filename))

    def _check_weights(self, filename: str) -> None:
        """What learns nothing any more is not saved, nor trained on."""
        problem = describe_not_finite(self.model.state_dict())
        if problem:
            raise CASTError(
                f'training diverged: {problem}; {filename} was not saved: '
                'lower the learning rate, or check the images'
            )

    def build_optim_wrapper(self, optim_wrapper: Any) -> OptimWrapper | OptimWrapperDict:
        check_optimizer_type(optim_wrapper)
        wrapper = super().build_optim_wrapper(optim_wrapper)
        check_parameter_groups(self.model, wrapper)
        return wrapper


class _Runner(CheckedRunner):
    """Shows the lines that a person follows a run by; dumps of configs and parameters go to the log
    file alone.
    """

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_short)
            else:
                handler.handleError = _raise_again
        return logger


class CheckedTestRunner(CheckedRunner):
    """Writes its config beside its log where the work directory has one: that is the training's,
    and labels and tests to come read it.
    """

    @master_only
    def dump_config(self) -> None:
        if not Path(self.work_dir, Path(self.cfg.filename or '').name).is_file():
            super().dump_config()
            return
        self.cfg.dump(Path(self.log_dir, Path(self.cfg.filename).name))


class _TestRunner(CheckedTestRunner, _Runner):
    """Of :func:`test_run`."""


def _start_worker(init: Callable[[int], None] | None, worker: int) -> None:
    end_with_parent()
    if init is not None:
        init(worker)


def _weigh_labels(model: nn.Module, loader: DataLoader) -> None:
    """Lets accumulated batches of one source each be the objective of a batch of all of them."""
    model = model.module if is_model_wrapper(model) else model
    shares = shares_of_batches(loader)
    if hasattr(model, 'label_weights') and min(shares) < 1:
        sup, semi = model.label_weights = 1 / shares[0], 1 / shares[1]
        say(
            f'L_sup is multiplied by {sup:g} and L_semi by {semi:g}: of the batches of '
            f'{loader.batch_size}, {shares[0]:.0%} have labeled images and {shares[1]:.0%} others'
        )


def _end_loaders(runner: Runner) -> None:
    """Ends the processes that load images for a run that is over.

    Left to the search for cycles, which a Runner is full of, their queues are finalised first, and
    each process waits five seconds for a word that never comes.
    """
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        iterator = getattr(getattr(loop, 'dataloader', None), '_iterator', None)
        if iterator is not None:
            iterator._shutdown_workers()


def _raise_again(record: logging.LogRecord) -> None:
    """In place of a traceback for each line that a full disk does not take."""
    raise  # noqa: PLE0704  called while the error is handled


def _is_short(record: logging.LogRecord) -> bool:
    message = record.getMessage().strip()
    if message.endswith('is skipped since its requires_grad=False'):
        return False  # MMEngine warns of every frozen parameter, of a teacher hundreds
    return record.levelno > logging.INFO or not (
        '\n' in message or message.startswith('paramwise_options')
    )


def train_run(cfg: Config, resume_from: Path | None = None) -> RunResult:
    """Trains as the config says.

    Args:
        cfg: an MMEngine config with ``work_dir``.
        resume_from: a checkpoint of this very run to resume from.

    Raises:
        CASTError: ``load_from`` is not a valid checkpoint of this model, the batch cannot be
            divided, the optimizer leaves out parameters that learn, no validation gives a metric of
            ``save_best``, a transform would leave masks behind, a loop would never end, ``sync_bn``
            would take activations out of the model, checkpoints are to have other names, weights
            become NaN or infinite, embeddings are kept of images that never come again, or the
            disk is full.
    """
    if resume_from:
        cfg.merge_from_dict(dict(resume=True, load_from=str(resume_from)))
    check_batch_sizes(cfg)
    if cfg.get('divide_batch_size'):
        divide_batch_size(cfg.train_dataloader, get_world_size())
    if not torch.cuda.is_available():
        keep_freed_memory()
    check_save_best(hook_options(cfg))
    check_filenames(hook_options(cfg))
    save_between_steps(cfg)
    check_mask_transforms(cfg.train_dataloader.dataset, 'train_dataloader.dataset')
    one_is_kept = keep_two(cfg)
    runner = build_runner(cfg)
    save_between_epochs(runner)
    new_parameters = () if resume_from else tuple(cfg.get('new_parameters', ()))
    if cfg.get('load_from'):
        load_weights(runner.model, cfg.load_from, new_parameters)
    for hook in (
        RepeatedImagesHook(),  # before the batches are numbered
        AdapterLoadingHook(),
        AdapterSavingHook(),
        ValidationsHook(),
        MissedValidationHook(),
        LoadedWeightsHook(new_parameters),
        SeedIterationsHook(),
    ):
        runner.register_hook(hook)
    remove_parts(checkpoint_folder(cfg, Path(cfg.work_dir)))
    with naming(cfg.work_dir):
        runner.train()
    if cfg.get('val_cfg') is not None and not is_validated(runner):
        runner.val_loop.run()  # training was stopped early
    _end_loaders(runner)
    barrier()  # the first process may still be writing
    metrics, best = best_validation(runner) or (latest_metrics(runner), None)
    checkpoint = last_checkpoint(runner)
    if one_is_kept:
        keep_only(checkpoint)
    return RunResult(metrics, count_parameters(runner.model), checkpoint, best)


def test_run(cfg: Config, checkpoint: str, predictions: Path | None = None) -> RunResult:
    """Tests a checkpoint on the config's test set.

    Args:
        cfg: an MMEngine config with ``work_dir``.
        checkpoint: weights of the whole model.
        predictions: a pickle file to write, see :class:`PredictionsFile`.

    Raises:
        CASTError: it is not an intact checkpoint of this model.
    """
    cfg.load_from = str(checkpoint)
    cfg.resume = False
    cfg.model = without_adapters(cfg.model)
    runner = build_runner(cfg, _TestRunner)
    load_weights(runner.model, cfg.load_from)
    runner.register_hook(LoadedWeightsHook())
    if predictions:
        runner.test_evaluator.metrics.append(PredictionsFile(str(predictions)))
    with naming(cfg.work_dir):
        metrics = scalars(runner.test())
    _end_loaders(runner)
    return RunResult(metrics, count_parameters(runner.model), Path(checkpoint))


def build_runner(cfg: Config, runner_class: type[_Runner] = _Runner) -> Runner:
    """A Runner that shares no log, message hub or visualizer with an earlier one in the process."""
    level = cfg.get('log_level', 'INFO')
    if isinstance(level, str) and level not in logging.getLevelNamesMapping():
        known = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')
        raise CASTError(f'log_level {level} is none; {hint(level, known)}')
    name = cfg.get('experiment_name') or Path(cfg.filename or 'run').stem
    cfg.experiment_name = f'{name}_{next(_run_number)}'
    if cfg.get('visualizer'):
        cfg.visualizer.name = cfg.experiment_name  # of the same name it would be the earlier run's
    logger = cfg.get('default_hooks', {}).get('logger')
    if logger and not cfg.get('log_processor', {}).get('by_epoch', True):
        logger.setdefault(
            'log_metric_by_epoch', False
        )  # else all validations are logged as of step 0
    if not torch.cuda.is_available() and cfg.get('launcher', 'none') != 'none':
        cfg.setdefault(
            'model_wrapper_cfg',
            dict(  # MMEngine's default one insists on a GPU
                type='MMDistributedDataParallel',
                device_ids=None,
                find_unused_parameters=cfg.get('find_unused_parameters', False),
            ),
        )
    if (
        not torch.cuda.is_available()
        and cfg.get('optim_wrapper', {}).get('type') == 'AmpOptimWrapper'
    ):
        use_full_precision(cfg.optim_wrapper)
    with naming(cfg.work_dir):
        runner = runner_class.from_cfg(cfg)
    if is_main_process():
        number_start(Path(runner.log_dir))
    return runner


def use_amp(config: Config) -> None:
    """Switches a training config to automatic mixed precision, as mmdet's ``--amp`` does."""
    config.optim_wrapper.type = 'AmpOptimWrapper'
    config.optim_wrapper.setdefault('loss_scale', 'dynamic')


def use_full_precision(optim_wrapper: dict) -> None:
    """Makes an ``AmpOptimWrapper``'s config an ``OptimWrapper``'s, in place; MMEngine's needs a
    GPU.
    """
    optim_wrapper['type'] = 'OptimWrapper'
    for option in ('dtype', 'loss_scale', 'use_fsdp'):
        optim_wrapper.pop(option, None)
    say('no GPU: training in full precision')
