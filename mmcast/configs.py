"""Finds and reads MMEngine configs, those shipped with mmcast included; errors are one line."""

import ast
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmcast.errors import CASTError

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict

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
        f'the configs of mmcast are not next to {_PACKAGE}: reinstall it with pip install mmcast'
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
    with contextlib.suppress(CASTError):
        return find_shipped(str(name))
    raise CASTError(f'config {own} not found; give the path of an existing config')


def find_shipped(name: str) -> Path:
    """The file of a config shipped with mmcast, named as for :func:`find_config`.

    Raises:
        CASTError: there is none.
    """
    path = shipped_configs() / name.removeprefix(SCOPE)
    if not path.is_file():
        raise CASTError(
            f'{name} is not among the configs of mmcast; they are in {shipped_configs()}'
        )
    return path


def load_config(name: str | os.PathLike, folder: str | os.PathLike = '') -> 'Config':
    """Reads a config, which :func:`find_config` finds.

    Raises:
        CASTError: there is none, or it is not a valid config; MMEngine's message may be many lines.
    """
    from mmengine.config import Config  # here, as finding a config needs no MMEngine

    path = find_config(name, folder)
    try:
        config = Config.fromfile(str(path), import_custom_modules=False)
    except Exception as error:  # a config is a program: any error of its author can surface here
        raise CASTError(f'config {path} cannot be read: {error}') from error
    import_custom_modules(config)
    return config


def network_settings(config: 'Config') -> 'ConfigDict':
    """The settings of the network that a config trains, inside a ``CASTDetector`` or alone."""
    return config.model.get('detector', config.model)


def load_bases(path: Path) -> list['Config']:
    """The configs that one inherits directly, each with what it inherits itself.

    Args:
        path: of a config in Python. What its ``_base_`` names by a computed value is left out.
    """
    if path.suffix != '.py':
        return []
    for line in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == '_base_':
            with contextlib.suppress(ValueError, CASTError):
                names = ast.literal_eval(line.value)
                names = [names] if isinstance(names, str) else names
                return [load_config(name, path.parent) for name in names]
    return []


def import_custom_modules(config: 'Config') -> None:
    """Imports what a config's ``custom_imports`` names, also modules that lie next to the config.

    MMEngine does it while it reads a file. A process that gets the config from another one has to
    do it itself.

    Raises:
        CASTError: a module cannot be imported.
    """
    from mmengine.utils import import_modules_from_strings

    wanted = config.get('custom_imports')
    if not wanted:
        return
    folder = str(Path(config.filename or '').resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that it hides no other module
    try:
        import_modules_from_strings(**wanted)
    except Exception as error:  # a module is a program as well
        cause = error.__context__ or error
        raise CASTError(
            f'config {config.filename}: custom_imports {wanted.get("imports")}: {cause}; put the '
            'module next to the config, or its folder into PYTHONPATH'
        ) from error
