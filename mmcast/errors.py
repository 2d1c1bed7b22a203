"""Errors that a user can fix: the message is one readable line that names the file and what to do.

Each is made of its message alone, so that it crosses the borders of processes: pickle and torch's
data loaders make it again from that.
"""

from collections.abc import Iterable


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
