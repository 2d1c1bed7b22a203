"""Errors that a user can fix: one readable line that names the file and what to do."""

from collections.abc import Iterable


class CASTError(Exception):
    """A mistake in a config, path, checkpoint or data set; command lines print it and exit with
    status 1.
    """


class NonFiniteError(CASTError, FloatingPointError):
    """NaN or infinity in training.

    Args:
        what: What holds it.
        metainfos: Meta information of the images concerned, whose paths are named.
    """

    def __init__(self, what: str, metainfos: Iterable[dict]) -> None:
        paths = ', '.join(meta.get('img_path', '?') for meta in metainfos)
        super().__init__(
            f'not finite: {what} on the images {paths}; lower the learning rate or check them'
        )
