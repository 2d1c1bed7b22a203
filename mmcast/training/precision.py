"""Mixed precision: MMEngine's on a GPU, bfloat16 on a CPU that computes in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner.amp import autocast
from torch import nn

from mmcast.registry import OPTIM_WRAPPERS
from mmcast.training.distributed import say

_OPTIONS = ('dtype', 'loss_scale', 'use_fsdp')  # of MMEngine's AmpOptimWrapper alone


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Forward passes in bfloat16 on a CPU, where MMEngine's ``AmpOptimWrapper`` insists on a GPU.

    bfloat16 has float32's range, so losses are not scaled.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), autocast(device_type='cpu', dtype=torch.bfloat16):
            yield


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16; on others, mixed precision would be slower."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ('avx512_bf16', 'amx_bf16'))


def use_amp(config: Config) -> None:
    """Switches a training config to mixed precision: on a GPU as mmdet's ``--amp`` does, on a CPU
    to bfloat16 where it has that, else not at all.
    """
    wrapper = config.optim_wrapper
    if torch.cuda.is_available():
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    elif cpu_has_bfloat16():
        _drop_options(wrapper)
        wrapper['type'] = 'CPUAmpOptimWrapper'
    else:
        use_full_precision(wrapper, 'no GPU, and a CPU without bfloat16')


def use_full_precision(optim_wrapper: dict, why: str = 'no GPU') -> None:
    """Makes an ``AmpOptimWrapper``'s config an ``OptimWrapper``'s, in place."""
    _drop_options(optim_wrapper)
    optim_wrapper['type'] = 'OptimWrapper'
    say(f'{why}: training in full precision')


def _drop_options(optim_wrapper: dict) -> None:
    for option in _OPTIONS:
        optim_wrapper.pop(option, None)
