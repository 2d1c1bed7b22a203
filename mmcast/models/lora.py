"""Low-rank adaptation (LoRA): small matrices learn beside frozen weights; the layers are peft's.

Hu et al., arXiv 2106.09685: a layer computes W x + alpha / rank B A x. A is random, B begins as
zeros.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from mmcast.adapter_files import is_adapter, plain_name
from mmcast.errors import CASTError
from mmcast.optional import require
from mmcast.spelling import hint

_ADAPTER = 'default'  # peft's name of a first adapter


@dataclass(frozen=True)
class LoRA:
    """The settings of a config's ``lora``.

    Attributes:
        rank: of the matrices.
        alpha: the sum is scaled by alpha / rank. Default twice the rank.
        dropout: of what goes into A, in training.
        layers: regular expressions that fit the beginnings of names: the linear layers of the
            network that get adapters. Default: the network's ``lora_layers``; where it has none,
            those of ``backbone``.
        learn_in_full: the same of parameters that learn as they are. Default: the network's
            ``lora_learn_in_full``; where it has none, all but the backbone, or nothing where
            ``layers`` is given.
    """

    rank: int = 4
    alpha: float | None = None
    dropout: float = 0.0
    layers: Sequence[str] | None = None
    learn_in_full: Sequence[str] | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> 'LoRA':
        """From a config.

        Raises:
            CASTError: there is no such setting, or it cannot have this value.
        """
        names = [field.name for field in fields(cls)]
        unknown = [name for name in settings if name not in names]
        if unknown:
            raise CASTError(f'lora has no {unknown[0]}; {hint(unknown[0], names)}')
        lora = cls(**settings)
        for name in ('alpha', 'dropout'):
            if not isinstance(getattr(lora, name), int | float | None):
                raise CASTError(f'lora.{name}={getattr(lora, name)} must be a number')
        if not (isinstance(lora.rank, int) and lora.rank > 0):
            raise CASTError(f'lora.rank={lora.rank} must be a whole number above 0')
        if lora.scaling <= 0 or not 0 <= lora.dropout < 1:
            raise CASTError(
                f'lora: alpha={lora.alpha} must be above 0, and dropout={lora.dropout} in [0, 1)'
            )
        if lora.layers is not None and not lora.layers:
            raise CASTError('lora.layers is empty: name layers, or leave it out for the default')
        return lora

    @property
    def scaling(self) -> float:
        """Of B A x."""
        return (2 * self.rank if self.alpha is None else self.alpha) / self.rank


def add_adapters(network: nn.Module, lora: LoRA) -> None:
    """Freezes a network, and gives its layers adapters that learn.

    What the network itself keeps frozen, such as one of two components, stays frozen, adapters
    included. Weights load by the names of the network without adapters too; adapters that are not
    in a checkpoint then begin anew.

    Args:
        network: to be changed, in place.
        lora: the settings.

    Raises:
        CASTError: peft is missing, or a name fits no layer or parameter.
    """
    peft = require('peft')
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    layers = _layers(network, lora)
    in_full = _in_full(network, lora)
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.scaling * lora.rank,
        lora_dropout=lora.dropout,
        target_modules='|'.join(map(re.escape, layers)),
    )
    peft.inject_adapter_in_model(config, network)
    del network.peft_config  # which peft alone would need
    for name, parameter in network.named_parameters():
        if is_adapter(name):
            learns = f'{name.rpartition(".lora_")[0]}.weight' in learning
        else:
            learns = plain_name(name) in learning & in_full
        parameter.requires_grad_(learns)
    for _, layer in adapted_layers(network):
        layer._register_load_state_dict_pre_hook(_accept_plain_weights, with_module=True)


def _layers(network: nn.Module, lora: LoRA) -> list[str]:
    """Names of the layers that get adapters."""
    patterns = lora.layers or getattr(network, 'lora_layers', None) or [r'backbone\.']
    # In nn.MultiheadAttention out_proj is never called, and peft's adapters of the whole change its
    # frozen weights by rounding, in each forward pass: findings/peft_multihead_attention_drifts.sh.
    linear = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and not isinstance(module, NonDynamicallyQuantizableLinear)
    ]
    return _that_fit(
        linear, patterns, 'lora.layers', 'linear layer (nn.MultiheadAttention has none)'
    )


def _in_full(network: nn.Module, lora: LoRA) -> set[str]:
    """Names of the parameters that may learn as they are."""
    patterns = lora.learn_in_full
    if patterns is None:
        patterns = getattr(network, 'lora_learn_in_full', None)
    if patterns is None:
        patterns = [] if lora.layers else [r'(?!backbone\.)']
    names = [name for name, _ in network.named_parameters()]
    return set(_that_fit(names, patterns, 'lora.learn_in_full', 'parameter'))


def _that_fit(names: Sequence[str], patterns: Sequence[str], setting: str, what: str) -> list[str]:
    """Names that begin as one of the patterns says.

    Raises:
        CASTError: a pattern is none, or fits no name.
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    for pattern in patterns:
        try:
            found = any(re.match(pattern, name) for name in names)
        except re.error as error:
            raise CASTError(f'{setting}: {pattern} is no regular expression ({error})') from error
        if not found:
            shown = ', '.join(names[:: max(1, len(names) // 4)][:4])
            raise CASTError(
                f'{setting}: no {what} has a name that begins with {pattern}; '
                + (f'names are such as {shown}' if names else 'the network has none')
            )
    return [name for name in names if any(re.match(pattern, name) for pattern in patterns)]


def adapted_layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a network that have adapters, by name."""
    for name, module in network.named_modules():
        if hasattr(module, 'base_layer') and hasattr(module, 'lora_A'):
            yield name, module


@contextmanager
def adapters_put_aside(network: nn.Module) -> Iterator[None]:
    """Within, the network has its own layers in place of those with adapters.

    Networks that draw their own weights fill whatever is linear in them, adapters included.
    """
    adapted = dict(adapted_layers(network))
    for name, layer in adapted.items():
        network.set_submodule(name, layer.base_layer)
    try:
        yield
    finally:
        for name, layer in adapted.items():
            network.set_submodule(name, layer)


def _accept_plain_weights(layer: nn.Module, state: dict, prefix: str, *_: Any) -> None:
    """Lets the weights of the layer without adapters load; its adapters then add nothing."""
    if f'{prefix}weight' not in state:
        return
    for name, _ in layer.base_layer.named_parameters():
        if prefix + name in state:
            state[f'{prefix}base_layer.{name}'] = state.pop(prefix + name)
    state[f'{prefix}lora_A.{_ADAPTER}.weight'] = layer.lora_A[_ADAPTER].weight.detach()
    state[f'{prefix}lora_B.{_ADAPTER}.weight'] = torch.zeros_like(layer.lora_B[_ADAPTER].weight)


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """A network's state without its adapters, by the names that it has without them."""
    return {
        plain_name(name): value
        for name, value in network.state_dict().items()
        if not is_adapter(name)
    }


def without_adapters(model: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a model that only predicts: weights load with the adapters merged."""
    return {key: value for key, value in model.items() if key != 'lora'}
