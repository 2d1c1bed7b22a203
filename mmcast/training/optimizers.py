"""Learning rates and weight decay by part of the network, for networks that are put together from
others.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIMIZERS as ROOT_OPTIMIZERS
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mmcast.adapter_files import is_adapter, plain_name
from mmcast.errors import CASTError
from mmcast.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS
from mmcast.spelling import hint

_OPTIONS = {'lr_mult', 'weight_decay', 'layer_decay', 'decay_norm_and_bias'}
_OF_ADAPTERS = dict(lr_mult=10.0, weight_decay=0.0)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PartsOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Parameter groups from ``paramwise_cfg=dict(parts={prefix: options})``.

    A parameter belongs to the part with the longest prefix of its name (``detector.`` of a
    ``CASTDetector`` left out). The options are ``lr_mult`` (1), ``weight_decay`` (the optimizer's),
    ``decay_norm_and_bias`` (True) and ``layer_decay`` (1): each block of an encoder learns by this
    factor less than the next one, the embedding less than the first block and what follows the
    blocks in full (BEiT, arXiv 2106.08254). How deep a parameter is, the encoder's own
    ``get_layer_depth(name, prefix)`` says; ``TimmEncoder``, mmpretrain's encoders and
    ``BoxPromptedSAM2`` have it.

    ``paramwise_cfg=dict(adapters=dict(lr_mult=..., weight_decay=...))`` is for LoRA adapters, which
    begin at zero: their learning rate is that of their part times ``lr_mult`` (10), in all layers
    alike, and ``weight_decay`` (0) takes the place of the part's. Both settings may be left out.

    Raises:
        CASTError: On an unknown option, a prefix that no parameter has, layer decay of a part
            whose depth no module tells, or an optimizer without ``lr``.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        # Not empty: MMEngine asks for groups only then, and adapters have theirs without parts.
        settings = {'parts': {}, 'adapters': {}, **(paramwise_cfg or {})}
        _check_names('paramwise_cfg', settings, ('parts', 'adapters'))
        _check_names('paramwise_cfg.adapters', settings['adapters'], _OF_ADAPTERS)
        super().__init__(optim_wrapper_cfg, settings)
        if self.base_lr is None:
            raise CASTError(
                'optim_wrapper.optimizer has no lr, whose multiples the rates of its parts are: '
                'set it'
            )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        wrapper = super().__call__(model)
        check_parameter_groups(model, wrapper)
        return wrapper

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: Any) -> None:
        """One group per pair of learning rate and weight decay; frozen parameters are in none."""
        parts = self.paramwise_cfg['parts']
        adapters = {**_OF_ADAPTERS, **self.paramwise_cfg['adapters']}
        names = {name: name.removeprefix('detector.') for name, _ in module.named_parameters()}
        part_of = {name: _longest_prefix(short, parts) for name, short in names.items()}
        distances = _distances_from_the_end(module)
        _check_parts(parts, list(names.values()), {part_of[name] for name in distances})
        undecayed = _norms_and_biases(module)
        groups: dict[tuple[float, float | None], dict] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            options = parts.get(part_of[name], {})
            lr = self.base_lr * options.get('lr_mult', 1.0)
            decay = options.get('weight_decay', self.base_wd)
            if is_adapter(name):
                lr *= adapters['lr_mult']
                decay = adapters['weight_decay']
            else:
                lr *= options.get('layer_decay', 1.0) ** distances.get(name, 0)
            if not options.get('decay_norm_and_bias', True) and name in undecayed:
                decay = 0.0
            settings = dict(lr=lr) if decay is None else dict(lr=lr, weight_decay=decay)
            group = groups.setdefault((lr, decay), dict(params=[], **settings))
            group['params'].append(parameter)
        params.extend(groups.values())


def check_optimizer_type(optim_wrapper: Any) -> None:
    """Raises CASTError where the optimizer is of a type that no registry has; MMEngine would call
    None.
    """
    settings = optim_wrapper.get('optimizer') if isinstance(optim_wrapper, dict) else None
    name = settings.get('type') if isinstance(settings, dict) else None
    if isinstance(name, str) and OPTIMIZERS.get(name) is None:
        known = sorted({*OPTIMIZERS.module_dict, *ROOT_OPTIMIZERS.module_dict})
        raise CASTError(
            f'optimizer {name} is in no registry: correct optim_wrapper, or name the module that '
            f'registers it under custom_imports; {hint(name, known)}'
        )


def check_parameter_groups(model: nn.Module, wrapper: OptimWrapper | OptimWrapperDict) -> None:
    """Whether every parameter that learns is in exactly one group of the optimizers.

    Raises:
        CASTError: Some are in none, and would stay as they are, or in several, and would be moved
            several times; names them.
    """
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    counts = Counter(
        id(parameter)
        for each in wrappers
        for group in each.optimizer.param_groups
        for parameter in group['params']
    )
    learning = {name: id(p) for name, p in model.named_parameters() if p.requires_grad}
    for what, wrong in (
        (
            'are in no parameter group of the optimizer',
            [n for n in learning if not counts[learning[n]]],
        ),
        ('are in several parameter groups', [n for n in learning if counts[learning[n]] > 1]),
    ):
        if wrong:
            more = f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''
            raise CASTError(
                f'optim_wrapper: {", ".join(wrong[:5])}{more} {what}; correct its constructor and '
                'paramwise_cfg, or freeze what is not to learn'
            )


def _check_names(where: str, names: Iterable[str], known: Iterable[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise CASTError(f'{where} has no {unknown[0]}; {hint(unknown[0], known)}')


def _check_parts(
    parts: dict[str, dict], names: Sequence[str], of_known_depth: Collection[str | None]
) -> None:
    """Raises CASTError on an unknown option, on a prefix that no parameter has, and on layer decay
    of a part without parameters of known depth.
    """
    unknown = {option for options in parts.values() for option in options} - _OPTIONS
    unused = [prefix for prefix in parts if not any(name.startswith(prefix) for name in names)]
    if unknown or unused:
        raise CASTError(
            f'paramwise_cfg.parts: {", ".join([*unknown, *unused])}: no such option or no '
            f'parameter of that name; options are {", ".join(sorted(_OPTIONS))}'
        )
    for part, options in parts.items():
        if 'layer_decay' in options and part not in of_known_depth:
            raise CASTError(
                f'paramwise_cfg.parts: layer_decay of {part!r}: no module there has '
                'get_layer_depth; give the encoder that method, or leave layer_decay out'
            )


def _longest_prefix(name: str, prefixes: Iterable[str]) -> str | None:
    """That of a name; None if it has none of them."""
    return max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default=None)


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


def _distances_from_the_end(module: nn.Module) -> dict[str, int]:
    """How many steps of layer decay each parameter of an encoder is away from what follows its
    blocks; by name, for the encoders that know it. They do not know adapters, which need none.
    """
    encoders = {
        f'{name}.' if name else '': part.get_layer_depth
        for name, part in module.named_modules()
        if hasattr(part, 'get_layer_depth')
    }
    distances = {}
    for name, _ in module.named_parameters():
        prefix = _longest_prefix(name, encoders)
        if prefix is not None and not is_adapter(name):
            known = encoders[prefix](plain_name(name), prefix)
            if known is not None:
                depth, number_of_layers = known
                distances[name] = number_of_layers - 1 - depth
    return distances
