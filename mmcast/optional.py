"""Packages that only some of what mmcast does needs; who lacks one is told what to type."""

import importlib
from types import ModuleType

from mmcast.errors import CASTError

# Where the distribution is not called like the module.
_INSTALL = dict(cv2='opencv-python-headless')


def require(name: str, fix: str = '') -> ModuleType:
    """The module ``name``.

    Raises:
        CASTError: it is not installed; says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition('.')[0]
        raise CASTError(
            f'{package} is needed for this and cannot be imported ({error}): '
            f'{fix or "pip install " + _INSTALL.get(package, package)}'
        ) from error
