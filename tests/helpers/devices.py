"""Where tests run that are the same on a CPU and on a GPU.

What is marked ``gpu`` is skipped without CUDA. ``MMCAST_REHEARSE_GPU=1 pytest -m gpu`` runs it on
the CPU, to find mistakes in the tests themselves.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.transforms.v2.functional import _geometry

REHEARSED = os.environ.get('MMCAST_REHEARSE_GPU') == '1'
GPU = 'cpu' if REHEARSED else 'cuda'
ON_GPU = pytest.param(GPU, id='cuda', marks=pytest.mark.gpu)
DEVICES = ['cpu', ON_GPU]

_DRAWING = (torch.rand, torch.randn, torch.randint, torch.randperm)
_DRAWING_ALIKE = (torch.rand_like, torch.randn_like, torch.randint_like, torch.multinomial)


class SameDraws(TorchFunctionMode):
    """Random numbers come from the CPU's generator on every device: these can be compared."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        if function in _DRAWING:
            device = keywords.pop('device', None)
            return function(*arguments, **keywords).to(device)
        if function in _DRAWING_ALIKE:
            first, *rest = arguments
            return function(first.detach().cpu(), *rest, **keywords).to(first.device)
        return function(*arguments, **keywords)


def without_dropout(model: nn.Module) -> nn.Module:
    """In place, in all places where networks have it."""
    for module in model.modules():
        for name in ('p', 'dropout', 'attention_dropout', 'activation_dropout', 'drop_prob'):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


@contextmanager
def comparable() -> Iterator[None]:
    """Where two devices would not compute the same, they do.

    cuDNN rounds what convolutions read to fewer bits than float32 has. torchvision resizes images
    of uint8 in whole numbers on a CPU and in float32 on a GPU, after which up to a fifth of the
    values differ by 1.
    """
    with (
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        mock.patch.object(_geometry, '_do_native_uint8_resize_on_cpu', return_value=False),
    ):
        yield
