"""Activation checkpointing with torch alone, for networks whose own switch needs fairscale."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(modules: Iterable[nn.Module]) -> None:
    """Let each module keep its inputs only and run forward again in the backward pass; in training
    alone.

    Losses, gradients and parameter names stay as they are.
    """
    for module in modules:
        module.forward = _checkpointed(module, module.forward)


def _checkpointed(module: nn.Module, forward: Callable) -> Callable:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if module.training and is_grad_enabled():
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        return forward(*args, **kwargs)

    return wrapper
