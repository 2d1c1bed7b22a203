"""Floating point operations of one prediction, by part of the network."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(network: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Operations of the matrix products and convolutions in ``run()``, attention included.

    A multiplication and an addition are two operations; papers that count with fvcore print half of
    that. What samples, such as deformable attention's and RoIAlign's interpolation, is not counted
    by torch.

    Args:
        network: a detector.
        run: predicts with it once.

    Returns:
        ``total``, and the parts of the network that have any: its children, with the pixel decoder
        apart from its head, and ``other`` for what is in none.
    """
    # The fused attention kernels of some devices are unknown to the counter; matrix products are
    # known everywhere.
    root = type(network).__name__
    with (
        _frozen(network),
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
        _entered_by_decode(network, root, counter),
    ):
        run()
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    parts = {}
    for name, child in network.named_children():
        place = f'{root}.{name}'
        parts[f'{name}.pixel_decoder'] = inner = by_module.get(f'{place}.pixel_decoder', 0)
        decoded = by_module.get(f'{place}.decode()') if place not in by_module else None
        parts[name] = decoded or _operations(child, place, by_module) - inner
    total = counter.get_total_flops()
    parts['other'] = total - sum(parts.values())
    return dict(total=total) | {name: count for name, count in parts.items() if count}


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Within, no parameter learns: torch's counter looks for the graph of each input that does, and
    views have none.
    """
    learning = [value for value in network.parameters() if value.requires_grad]
    for value in learning:
        value.requires_grad_(False)
    try:
        yield
    finally:
        for value in learning:
            value.requires_grad_(True)


@contextlib.contextmanager
def _entered_by_decode(network: nn.Module, root: str, counter: FlopCounterMode) -> Iterator[None]:
    """Within, calls of a head's ``decode`` count for the head; torch's counter knows of calls of
    modules only.
    """
    heads = {name: child for name, child in network.named_children() if hasattr(child, 'decode')}
    for name, head in heads.items():

        def decode(
            *args: Any,
            place: str = f'{root}.{name}.decode()',
            original: Callable = head.decode,
            **kwargs: Any,
        ) -> Any:
            counter.mod_tracker.parents.add(place)
            try:
                return original(*args, **kwargs)
            finally:
                counter.mod_tracker.parents.discard(place)

        head.decode = decode
    try:
        yield
    finally:
        for head in heads.values():
            del head.decode


def _operations(module: nn.Module, name: str, by_module: dict[str, int]) -> int:
    """Of a module; of its children where only its methods were called, such as
    ``roi_head.predict``.
    """
    return by_module.get(name) or sum(
        _operations(child, f'{name}.{part}', by_module) for part, child in module.named_children()
    )


def parameters_by_part(network: nn.Module) -> dict[str, int]:
    """Parameters, split like the operations of :func:`count_flops`."""
    parts = {}
    for name, child in network.named_children():
        own = getattr(child, 'pixel_decoder', None)
        inner = sum(value.numel() for value in own.parameters()) if own is not None else 0
        parts |= {f'{name}.pixel_decoder': inner} if inner else {}
        parts[name] = sum(value.numel() for value in child.parameters()) - inner
    total = sum(value.numel() for value in network.parameters())
    return dict(total=total) | {name: count for name, count in parts.items() if count}
