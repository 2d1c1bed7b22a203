"""Whether torch can compute on a device that somebody named."""

from mmcast.errors import CASTError


def check_device(name: str | None) -> None:
    """Raises CASTError where torch cannot compute on a device: before the work, not after it.

    Args:
        name: such as ``cuda:1``; None is right, as it means what there is.
    """
    if name is None:
        return
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CASTError(f'device {name!r} is not known; give cpu, cuda or cuda:1') from error
    try:
        torch.zeros(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        reason = str(error).splitlines()[0].split('. ')[0].rstrip('.')
        raise CASTError(
            f'device {name!r} cannot be used here: {reason}; leave --device out, or choose another '
            f'(there {_devices()})'
        ) from error


def _devices() -> str:
    import torch

    names = ['cpu', *(f'cuda:{number}' for number in range(torch.cuda.device_count()))]
    return f'is {names[0]} alone' if len(names) == 1 else f'are {", ".join(names)}'
