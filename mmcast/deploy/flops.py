"""Floating point operations of one prediction, by part of the network."""
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(network: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Operations of the matrix products and convolutions in ``run()``, attention included.

    A multiplication and an addition are two operations; papers that count with fvcore print half of that.
    What samples, such as deformable attention's and RoIAlign's interpolation, is not counted by torch.

    Args:
        network: a detector.
        run: predicts with it once.

    Returns:
        ``total``, and the parts of the network that have any: its children, with the pixel decoder apart from
        its head, and ``other`` for what is in none.
    """
    # The fused attention kernels of some devices are unknown to the counter; matrix products are known
    # everywhere.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    root = type(network).__name__
    parts = {}
    for name, child in network.named_children():
        inner = by_module.get(f'{root}.{name}.pixel_decoder', 0)
        parts[f'{name}.pixel_decoder'] = inner
        parts[name] = _operations(child, f'{root}.{name}', by_module) - inner
    total = counter.get_total_flops()
    parts['other'] = total - sum(parts.values())
    return dict(total=total) | {name: count for name, count in parts.items() if count}


def _operations(module: nn.Module, name: str, by_module: dict[str, int]) -> int:
    """Of a module; of its children where only its methods were called, such as ``roi_head.predict``."""
    return by_module.get(name) or sum(
        _operations(child, f'{name}.{part}', by_module) for part, child in module.named_children())


def count_parameters(network: nn.Module) -> dict[str, int]:
    """Parameters, split like the operations of :func:`count_flops`."""
    parts = {}
    for name, child in network.named_children():
        own = getattr(child, 'pixel_decoder', None)
        inner = sum(value.numel() for value in own.parameters()) if own is not None else 0
        parts |= {f'{name}.pixel_decoder': inner} if inner else {}
        parts[name] = sum(value.numel() for value in child.parameters()) - inner
    total = sum(value.numel() for value in network.parameters())
    return dict(total=total) | {name: count for name, count in parts.items() if count}
