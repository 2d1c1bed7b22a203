"""Checkpoints that hold LoRA adapters alone, and name the base weights which they adapt.

Such a file is a checkpoint of MMEngine with a further key, ``lora``. Its states hold the adapters
and whatever else differs from the base weights; the rest is read from the base, a file that is
known by its path and its SHA-256. Who reads a checkpoint gets all weights, adapters merged.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmcast.checkpoints import download, load_plain, weights_in
from mmcast.errors import CASTError
from mmcast.files import BASE_WEIGHTS, sha256_of_file

KEY = 'lora'
# What a checkpoint may hold states of: the model, and MMEngine's EMAHook.
STATES = ('state_dict', 'ema_state_dict')
_LAYER = '.base_layer.'
_A, _B = '.lora_A.default.weight', '.lora_B.default.weight'
# Of DDP and EMAHook, and the networks in a CASTDetector, which start from the same weights.
_PREFIXES = ('module.', 'detector.', 'teacher.')


@dataclass(frozen=True)
class BaseWeights:
    """The file that adapters belong to.

    Attributes:
        path: where it was.
        size: in bytes.
        sha256: of its content.
        relative: its path from the folder of the checkpoint.
        url: where it was downloaded from.
    """

    path: str
    size: int
    sha256: str
    relative: str = ''
    url: str = ''

    @classmethod
    def of(cls, source: str | os.PathLike) -> 'BaseWeights':
        """A file's, or an address's, which is downloaded once."""
        url = str(source) if is_address(source) else ''
        path = download(url) if url else Path(source)
        return cls(str(path.absolute()), path.stat().st_size, _sha256(path), url=url)

    def seen_from(self, folder: str | os.PathLike) -> 'BaseWeights':
        """With the relative path from a folder, by which both can be moved together."""
        try:
            return replace(self, relative=os.path.relpath(self.path, folder))
        except ValueError:  # another drive
            return replace(self, relative='')


def is_address(source: str | os.PathLike) -> bool:
    return str(source).startswith(('http://', 'https://'))


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is an adapter's."""
    return '.lora_A.' in name or '.lora_B.' in name


def plain_name(name: str) -> str:
    """A weight's name in the network without adapters."""
    return name.replace(_LAYER, '.')


# ---- reading


def load_whole(path: str | Path, map_location: Any = 'cpu') -> Any:
    """The content of a weights file, see :func:`~mmcast.checkpoints.load_plain`, with all weights.

    Adapters are merged into the weights that they adapt: the states have the names of the network
    without adapters. Under ``lora``, ``own`` has them with the names of the network with adapters.

    Raises:
        CASTError: as ``load_plain``; or the base weights are not found, or not those.
    """
    content = load_plain(path, map_location)
    return _complete(content, Path(path)) if is_adapter_checkpoint(content) else content


def is_adapter_checkpoint(content: Any) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get(KEY), Mapping)


def _complete(content: Mapping, path: Path) -> dict:
    lora = dict(content[KEY])
    try:
        base = BaseWeights(**lora['base']) if lora['base'] else None
        unchanged, scaling = lora['unchanged'], float(lora['scaling'])
    except (KeyError, TypeError, ValueError) as error:
        raise CASTError(
            f'{path}: its part lora cannot be read ({error!r}): it was made by another version of '
            'mmcast, or is damaged; make it again'
        ) from error
    weights = {}
    if base is not None:
        found = find_base(base, path.absolute().parent, f'{path} holds adapters alone')
        lora['found'] = str(found)
        weights = read_base(found)
    lora['own'] = {
        key: _fill(content[key], unchanged[key], weights, path)
        for key in STATES
        if key in unchanged
    }
    merged = {key: merge(state, scaling) for key, state in lora['own'].items()}
    return {**content, **merged, KEY: lora}


def _fill(state: Mapping, names: list[str], weights: Mapping[str, Tensor], path: Path) -> dict:
    lacking = [name for name in names if base_name(name) not in weights]
    if lacking:
        raise CASTError(
            f'{path} takes {lacking[0]} from its base weights, which lack it: it is damaged, make '
            'it again'
        )
    return {**state, **{name: weights[base_name(name)] for name in names}}


def find_base(base: BaseWeights, folder: Path, needed: str) -> Path:
    """The file of the base weights, by its content.

    Looked at are, in this order: what ``--base-weights`` or the environment variable
    ``MMCAST_BASE_WEIGHTS`` names, the same place seen from the checkpoint, the place where the file
    was, the checkpoint's own folder.

    Args:
        base: what is looked for.
        folder: of the checkpoint.
        needed: what for, to begin the message with.

    Raises:
        CASTError: none of them is the file; says what was looked at.
    """
    looked_at = []
    for path in dict.fromkeys(_places(base, folder)):
        if not path.is_file():
            looked_at.append(f'{path} is not there')
        elif path.stat().st_size == base.size and _sha256(path) == base.sha256:
            return path
        else:
            looked_at.append(f'{path} has another content')
    raise CASTError(
        f'{needed}, and the base weights {Path(base.path).name} (SHA-256 {base.sha256[:12]}...) '
        f'are not found: {"; ".join(looked_at)}; say where by --base-weights PATH or '
        f'{BASE_WEIGHTS}=PATH' + (f', or download {base.url}' if base.url else '')
    )


def _places(base: BaseWeights, folder: Path) -> Iterator[Path]:
    name = Path(base.path).name
    for given in filter(None, os.environ.get(BASE_WEIGHTS, '').split(os.pathsep)):
        yield Path(given, name) if Path(given).is_dir() else Path(given)
    if base.relative:
        yield Path(os.path.normpath(folder / base.relative))
    yield Path(base.path)
    yield folder / name


def _sha256(path: Path) -> str:
    """Of a file's content; read again only where the file changed."""
    stat = path.stat()
    return _known_sha256(str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@cache
def _known_sha256(path: str, *stat: int) -> str:
    return sha256_of_file(path)


def read_base(path: Path) -> dict[str, Tensor]:
    """The weights of a file by their names in the network alone, on the CPU."""
    state = weights_in(load_plain(path))
    first = 'detector.' if any(name.startswith('detector.') for name in state) else ''
    return {name.removeprefix(first): value for name, value in state.items()}


def base_name(name: str) -> str:
    """What a weight of a model is called in :func:`read_base`."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return plain_name(name)


def merge(state: Mapping[str, Any], scaling: float) -> dict[str, Any]:
    """A state with the names and weights of the network without adapters: W + scaling B A.

    Args:
        state: of a network with adapters.
        scaling: alpha / rank.
    """
    merged = {plain_name(name): value for name, value in state.items() if not is_adapter(name)}
    for name in state:
        if name.endswith(_A):
            layer = name.removesuffix(_A)
            weight = merged[f'{layer}.weight']
            a, b = (state[layer + end].to(weight.device, torch.float32) for end in (_A, _B))
            merged[f'{layer}.weight'] = (weight.float() + scaling * (b @ a)).to(weight.dtype)
    return merged


# ---- writing


def leave_out_base(checkpoint: dict, base: BaseWeights | None, scaling: float) -> None:
    """Takes out of a checkpoint, in place, what is as in the base weights.

    Args:
        checkpoint: MMEngine's, of a model with adapters.
        base: the weights that training began with; None keeps all weights.
        scaling: alpha / rank.

    Raises:
        CASTError: the base weights have been moved or changed since.
    """
    weights: dict[str, Tensor] = {}
    if base is not None:
        weights = read_base(find_base(base, Path(base.path).parent, 'only adapters are saved'))
    unchanged = {}
    for key in STATES:
        if key in checkpoint:
            state = checkpoint[key]
            unchanged[key] = [name for name in state if _is_unchanged(name, state[name], weights)]
            left_out = set(unchanged[key])
            checkpoint[key] = {name: state[name] for name in state if name not in left_out}
    checkpoint[KEY] = dict(
        base=asdict(base) if base else None, scaling=scaling, unchanged=unchanged
    )


def _is_unchanged(name: str, value: Any, weights: Mapping[str, Tensor]) -> bool:
    """Whether a weight is, bit for bit, what loading the base would make of it."""
    old = weights.get(base_name(name))
    if not isinstance(value, Tensor) or old is None or old.shape != value.shape:
        return False
    return torch.equal(old.to(value.dtype), value.cpu())
