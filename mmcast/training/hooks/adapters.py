"""Checkpoints of a model with LoRA adapters: they hold what differs from the base weights."""

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmcast.adapter_files import KEY, BaseWeights, is_adapter, is_address, leave_out_base
from mmcast.errors import CASTError
from mmcast.models.weights.reading import describe_mismatch
from mmcast.registry import HOOKS
from mmcast.training.checkpoints import checkpoint_hook
from mmcast.training.distributed import say

_CHECKED_AFTER = 50  # updates of the weights


def _model(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _adapters(state: dict) -> dict:
    """Those of the network that learns."""
    return {key: state[key] for key in state if key.startswith('detector.') and is_adapter(key)}


@HOOKS.register_module()
class AdapterLoadingHook(Hook):
    """Gives a model with adapters the adapters of a checkpoint, which is read with these merged.

    Raises:
        CASTError: The checkpoint's adapters are of other layers, rank or scaling.
    """

    priority = 'HIGHEST'  # before hooks that read the state

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the states with adapters in the place of those without."""
        model, found = _model(runner), checkpoint.get(KEY)
        if not found or getattr(model, 'lora', None) is None:
            return
        mismatch = describe_mismatch(
            _adapters(model.state_dict()), _adapters(found['own']['state_dict'])
        )
        if model.lora.scaling != found['scaling']:
            mismatch = f'alpha / rank is {found["scaling"]}, needs {model.lora.scaling}'
        if mismatch:
            raise CASTError(
                f'load_from: the adapters of the checkpoint are not those of model.lora '
                f'({mismatch}); give the same lora, or load what mmcast export makes of it'
            )
        checkpoint.update(found['own'])


@HOOKS.register_module()
class AdapterSavingHook(Hook):
    """Saves adapters alone, with the path and SHA-256 of the base weights that the run loaded.

    What is saved is all that differs from them: adapters, whatever learns in full, statistics of
    normalisation layers. Without ``load_from`` checkpoints hold the whole model.
    """

    priority = 'LOWEST'  # after EMAHook, which exchanges weights in what is saved

    def __init__(self) -> None:
        self.base: BaseWeights | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the base weights."""
        if getattr(_model(runner), 'lora', None) is None or not is_main_process():
            return
        found, source = checkpoint.get(KEY), runner._load_from
        if found:
            self.base = BaseWeights.of(found['found']) if found['base'] else None
        elif source and (is_address(source) or Path(source).is_file()):
            self.base = BaseWeights.of(source)

    def before_train(self, runner: Runner) -> None:
        """Say what a checkpoint will hold."""
        model = _model(runner)
        if getattr(model, 'lora', None) is None:
            return
        learning = sum(part.numel() for part in model.parameters() if part.requires_grad)
        saved = (
            f'beside {self.base.path}' if self.base else 'with the whole model, without load_from'
        )
        say(f'LoRA of rank {model.lora.rank}: {learning} parameters learn, saved {saved}')

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """After some updates, name adapters that no gradient reaches."""
        updates = getattr(runner.optim_wrapper, '_accumulative_counts', 1) * _CHECKED_AFTER
        if runner.iter + 1 != updates or getattr(_model(runner), 'lora', None) is None:
            return
        second = {
            name: part
            for name, part in _model(runner).named_parameters()
            if '.lora_B.' in name and part.requires_grad
        }
        idle = [name for name, part in second.items() if not part.any()]
        if second and len(idle) == len(second):
            raise CASTError(
                f'no adapter has learned in {_CHECKED_AFTER} updates: no gradient reaches them; '
                'use activation_checkpointing of the network in place of reentrant checkpointing, '
                'and check the learning rate'
            )
        if idle:
            say(
                f'warning: {len(idle)} of {len(second)} adapters have not learned in '
                f'{_CHECKED_AFTER} updates, such as {idle[0]}: leave them out of lora.layers'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take out what is as in the base weights."""
        lora = getattr(_model(runner), 'lora', None)
        if lora is None:
            return
        hook = checkpoint_hook(runner)
        folder = hook.out_dir if hook is not None else runner.work_dir
        base = self.base.seen_from(folder) if self.base else None
        leave_out_base(checkpoint, base, lora.scaling)
