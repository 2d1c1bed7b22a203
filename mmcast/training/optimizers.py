"""Learning rates and weight decay by part of the network, for networks that are put together from
others.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mmcast.errors import CASTError
from mmcast.registry import OPTIM_WRAPPER_CONSTRUCTORS

_OPTIONS = {'lr_mult', 'weight_decay', 'layer_decay', 'decay_norm_and_bias'}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PartsOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Parameter groups from ``paramwise_cfg=dict(parts={prefix: options})``.

    A parameter belongs to the part with the longest prefix of its name (``detector.`` of a
    ``CASTDetector`` left out). The options are ``lr_mult`` (1), ``weight_decay`` (the optimizer's),
    ``decay_norm_and_bias`` (True) and ``layer_decay`` (1): each block of an encoder learns by this
    factor less than the next one, ``blocks.N`` being its number, the embedding less than the first
    block and what follows the blocks in full (BEiT, arXiv 2106.08254).

    Raises:
        CASTError: On an unknown option, or a prefix that no parameter has.
    """

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: Any) -> None:
        """One group per pair of learning rate and weight decay; frozen parameters are in none."""
        parts = self.paramwise_cfg['parts']
        unknown = {option for options in parts.values() for option in options} - _OPTIONS
        names = {name.removeprefix('detector.'): name for name, _ in module.named_parameters()}
        unused = [prefix for prefix in parts if not any(name.startswith(prefix) for name in names)]
        if unknown or unused:
            raise CASTError(
                f'paramwise_cfg.parts: {", ".join([*unknown, *unused])}: no such option or no '
                f'parameter of that name; options are {", ".join(sorted(_OPTIONS))}'
            )
        blocks = _number_of_blocks(names)
        undecayed = _norms_and_biases(module)
        groups: dict[tuple[float, float], dict] = {}
        parameters = dict(module.named_parameters())
        for short, name in names.items():
            if not parameters[name].requires_grad:
                continue
            prefix = max(
                (prefix for prefix in parts if short.startswith(prefix)), key=len, default=''
            )
            options = parts.get(prefix, {})
            lr = self.base_lr * options.get('lr_mult', 1.0)
            if 'layer_decay' in options:
                lr *= options['layer_decay'] ** _distance_from_the_end(short, blocks)
            decay = options.get('weight_decay', self.base_wd)
            if not options.get('decay_norm_and_bias', True) and name in undecayed:
                decay = 0.0
            groups.setdefault((lr, decay), dict(params=[], lr=lr, weight_decay=decay))[
                'params'
            ].append(parameters[name])
        params.extend(groups.values())


def _norms_and_biases(module: nn.Module) -> set[str]:
    """Names of all biases and of the weights of normalisation layers."""
    names = set()
    for prefix, part in module.named_modules():
        is_norm = isinstance(part, (_NormBase, nn.GroupNorm, nn.LayerNorm))
        names |= {
            f'{prefix}.{name}'.removeprefix('.')
            for name, _ in part.named_parameters(recurse=False)
            if is_norm or name == 'bias'
        }
    return names


def _distance_from_the_end(name: str, number_of_blocks: Counter) -> int:
    """How many steps of layer decay a parameter is away from what follows the encoder's blocks."""
    encoder, _, rest = name.partition('.blocks.')
    if rest:
        return number_of_blocks[encoder] - int(rest.split('.')[0])
    encoder, *rest = re.split(r'\.\w*embed', name, maxsplit=1)
    return number_of_blocks[encoder] + 1 if rest else 0


def _number_of_blocks(names: Iterable[str]) -> Counter:
    """By the name of the module that has them as ``blocks``."""
    matches = (re.match(r'(.*?)\.blocks\.(\d+)\.', name) for name in names)
    return Counter(encoder for encoder, _ in {match.groups() for match in matches if match})
