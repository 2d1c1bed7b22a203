"""Loading a checkpoint into a model: without running code in it, and only if it fits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.model import is_model_wrapper

from mmcast.adapter_files import is_adapter, is_address
from mmcast.checkpoints import download
from mmcast.errors import CASTError
from mmcast.models.lora import plain_state
from mmcast.models.weights.reading import describe_mismatch, read_state_dict

# Parts that only training has: a checkpoint may have them or not, and the model's size is without
# them.
TRAINING_ONLY = ('pixel_contrast.', 'teacher.')


def load_weights(model: torch.nn.Module, path: str, new_parameters: Sequence[str] = ()) -> None:
    """Loads a whole model's checkpoint without running code in it, and insists that it fits.

    MMEngine loads with ``strict=False`` and only logs what did not fit. Keys that only training has
    may be absent on either side. ``Runner`` loads the same file again at its own time, after
    ``init_weights``.

    Args:
        model: to be loaded into.
        path: of the checkpoint.
        new_parameters: beginnings of names in the network (a config's ``new_parameters``) that need
            not be in the checkpoint, or not in this shape, and start at random: the class head for
            other classes, say.

    Raises:
        CASTError: unreadable, not finite, or names or shapes differ; names the first keys and the
            fix.
    """
    model = model.module if is_model_wrapper(model) else model
    left_out = _in_network(new_parameters)
    state = without_new_parameters(_read_weights(path), new_parameters)
    fix = 'give a checkpoint of this model, or the config that the checkpoint was trained with'
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        difference = describe_mismatch(plain_state(model), state)
        raise CASTError(
            f'{path} is a checkpoint of another architecture ({difference}); {fix}'
        ) from error
    unfit = {'missing': _needed(missing, left_out), 'unknown': _needed(unexpected)}
    problems = [
        f'{len(keys)} keys {kind}, such as {", ".join(keys[:3])}'
        for kind, keys in unfit.items()
        if keys
    ]
    if problems:
        raise CASTError(
            f'{path} is a checkpoint of another architecture ({"; ".join(problems)}); {fix}'
        )


def without_new_parameters(
    state: Mapping[str, torch.Tensor], new_parameters: Sequence[str]
) -> dict[str, torch.Tensor]:
    """What of a checkpoint is loaded, see :func:`load_weights`."""
    left_out = _in_network(new_parameters)
    return {key: value for key, value in state.items() if not key.startswith(left_out)}


def count_parameters(model: torch.nn.Module) -> int:
    """Parameters of the deployed model, without what only training has."""
    model = model.module if is_model_wrapper(model) else model
    return sum(
        value.numel()
        for name, value in model.named_parameters()
        if not name.startswith(TRAINING_ONLY) and not is_adapter(name)
    )


def _in_network(names: Sequence[str]) -> tuple[str, ...]:
    """Beginnings of names, also as a ``CASTDetector`` has them."""
    return (*names, *(f'detector.{name}' for name in names))


def _read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    return read_state_dict(download(str(path)) if is_address(path) else path)


def _needed(keys: list[str], left_out: tuple[str, ...] = ()) -> list[str]:
    return [key for key in keys if not key.startswith(TRAINING_ONLY + left_out)]
