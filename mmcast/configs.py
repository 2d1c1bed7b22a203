"""Finds and reads MMEngine configs, those shipped with mmcast included; errors are one line."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mmcast.errors import CASTError

if TYPE_CHECKING:
    from mmengine.config import Config

_PACKAGE = Path(__file__).parent
SCOPE = 'mmcast::'


def shipped_configs() -> Path:
    """The folder of the configs that come with mmcast, in a checkout as well as after ``pip
    install``.

    Raises:
        CASTError: it is not there.
    """
    for folder in (_PACKAGE / '.mim' / 'configs', _PACKAGE.parent / 'configs'):
        if (folder / '_base_').is_dir():
            return folder
    raise CASTError(
        f'the configs of mmcast are not beside {_PACKAGE}: install it again with pip install mmcast'
    )


def find_config(name: str | os.PathLike, folder: str | os.PathLike = '') -> Path:
    """The file of a config.

    Args:
        name: a path; or one below the shipped configs, such as ``cast_toy.py`` or
            ``toy/toy_student_refine.py``, with or without ``mmcast::`` before it. A file of one's
            own wins over a shipped one.
        folder: what a relative path is relative to.

    Raises:
        CASTError: there is none.
    """
    own = Path(folder, name)
    if own.is_file():
        return own
    shipped = shipped_configs() / str(name).removeprefix(SCOPE)
    if shipped.is_file():
        return shipped
    raise CASTError(f'config {own} not found; give the path of an existing config')


def load_config(name: str | os.PathLike, folder: str | os.PathLike = '') -> 'Config':
    """Reads a config, which :func:`find_config` finds.

    Raises:
        CASTError: there is none, or it is no valid config; MMEngine's message may be many lines.
    """
    from mmengine.config import Config  # here, as finding a config needs no MMEngine

    path = find_config(name, folder)
    try:
        return Config.fromfile(str(path))
    except Exception as error:  # a config is a program: any error of its author can surface here
        raise CASTError(f'config {path} cannot be read: {error}') from error
