"""Errors that a user can fix: the message is one readable line that names the file and what to do.

Each is made of its message alone, so that it crosses the borders of processes: pickle and torch's
data loaders make it again from that.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator

_OF_THE_MACHINE = re.compile(
    r'out ?of ?memory|(not enough|insufficient) memory|allocat|\b(CUDA|CUDNN|CUBLAS|HIP)\b',
    re.IGNORECASE,
)


class CASTError(Exception):
    """A mistake in a config, path, checkpoint or data set; command lines print it and exit with
    status 1.
    """


class NonFiniteError(CASTError, FloatingPointError):
    """NaN or infinity in training."""

    @classmethod
    def on_images(cls, what: str, metainfos: Iterable[dict]) -> 'NonFiniteError':
        """The error that names images.

        Args:
            what: What is not finite.
            metainfos: Meta information of the images concerned, with ``img_path``.
        """
        paths = ', '.join(meta.get('img_path', '?') for meta in metainfos)
        return cls(
            f'not finite: {what} on the images {paths}; lower the learning rate or check them'
        )


class SeveralErrors(CASTError):
    """Mistakes that do not depend on each other; its arguments are their messages."""

    def __str__(self) -> str:
        listed = (f'({number}) {text}' for number, text in enumerate(self.args, 1))
        return f'{len(self.args)} problems: {"; ".join(listed)}'


class Problems:
    """Notes mistakes that do not depend on each other, so that a user hears of all at once."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Within the block, a CASTError ends the block alone."""
        try:
            yield
        except SeveralErrors as errors:
            self.messages.extend(errors.args)
        except CASTError as error:
            self.messages.append(str(error))

    def raise_all(self) -> None:
        """Raises CASTError with the messages noted so far."""
        different = list(dict.fromkeys(self.messages))
        if different:
            raise SeveralErrors(*different) if len(different) > 1 else CASTError(different[0])


def reason_of(error: Exception) -> str:
    """An error of one image as one line."""
    text = ' '.join(str(error).split())
    return text if isinstance(error, CASTError) else f'{type(error).__name__}: {text}'.rstrip(': ')


def is_of_machine(error: Exception) -> bool:
    """Whether memory or the accelerator is to blame for an error, and not the image.

    One of ours is judged by its cause: its message has the names of files, such as
    ``cuda/student.onnx``.
    """
    if isinstance(error, CASTError):
        return isinstance(error.__cause__, Exception) and is_of_machine(error.__cause__)
    return isinstance(error, MemoryError) or bool(
        _OF_THE_MACHINE.search(f'{type(error).__name__} {error}')
    )
