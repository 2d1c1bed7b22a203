"""Activation checkpointing with torch alone, for networks whose own switch needs fairscale."""

from collections.abc import Iterable
from functools import cache
from typing import Any, SupportsIndex

from torch import is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(modules: Iterable[nn.Module]) -> None:
    """Let each module keep its inputs only and run forward again in the backward pass; in training
    alone.

    Losses, gradients and parameter names stay as they are. Copies and pickles of a module are
    checkpointed as well: its class changes, to a subclass of the one that it had, and the module
    itself keeps nothing.
    """
    for module in modules:
        if not isinstance(module, _Checkpointed):
            module.__class__ = _checkpointed(type(module))


class _Checkpointed:
    """What the subclasses have in common."""


@cache
def _checkpointed(kind: type[nn.Module]) -> type[nn.Module]:
    """The subclass of ``kind`` whose modules are checkpointed; it has the same name."""

    class Checkpointed(_Checkpointed, kind):  # type: ignore[valid-type]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            if self.training and is_grad_enabled():
                return checkpoint(super().forward, *args, use_reentrant=False, **kwargs)
            return super().forward(*args, **kwargs)

        def __reduce_ex__(self, protocol: SupportsIndex) -> tuple:
            # No module has this class as a name: pickles and copies make it again.
            return _empty_module, (kind,), *super().__reduce_ex__(protocol)[2:]

    Checkpointed.__name__, Checkpointed.__qualname__ = kind.__name__, kind.__qualname__
    Checkpointed.__module__, Checkpointed.__doc__ = kind.__module__, kind.__doc__
    return Checkpointed


def _empty_module(kind: type[nn.Module]) -> nn.Module:
    """A module that waits for its state."""
    checkpointed = _checkpointed(kind)
    return checkpointed.__new__(checkpointed)
