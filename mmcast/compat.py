"""The one place that papers over other packages' rough edges. Imports neither torch nor mmcv."""

import functools
import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

_STAND_IN = Path(__file__).with_name('mmcv_ext.py')
_MARK = 'drops_onedl_noise'
_ONEDL_NOISE = 'Could not import OneDL'


class OperatorFinder:
    """Answers ``import mmcv._ext`` with mmcast's stand-in.

    It stands last in ``sys.meta_path``, so Python asks it only after it has found no compiled
    module.
    """

    @staticmethod
    def find_spec(fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname == 'mmcv._ext':
            return importlib.util.spec_from_file_location(fullname, _STAND_IN)
        return None


class ImportWatcher:
    """Hears of every import first and finds nothing itself; readies what mmdet and mmpretrain print
    through.

    Doing that at once would import MMEngine and torch, which those who only run an ONNX file may
    not have.
    """

    @staticmethod
    def find_spec(fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname in ('mmdet', 'mmpretrain'):
            _drop_onedl_noise()


def _drop_onedl_noise() -> None:
    try:
        import mmengine.logging
    except ImportError:  # tools/check_env.py says so in words
        return
    if not hasattr(mmengine.logging.print_log, _MARK):
        mmengine.logging.print_log = _without_onedl_noise(mmengine.logging.print_log)


def _without_onedl_noise(print_log: Callable) -> Callable:
    """The same ``print_log`` but for one line.

    mmdet and mmpretrain print it at import, on every rank, where an optional data set package is
    missing.
    """

    @functools.wraps(print_log)
    def wrapper(msg: Any, *args: Any, **kwargs: Any) -> None:
        if msg != _ONEDL_NOISE:
            print_log(msg, *args, **kwargs)

    setattr(wrapper, _MARK, True)
    return wrapper


def install() -> None:
    """Put the stand-in for missing mmcv operators in place, calm OpenMP, drop one line of import
    noise.

    Calling it again changes nothing. Must run before mmdet is imported: ``import mmcast`` does it.
        It imports
    neither torch nor MMEngine itself.
    """
    # Read when torch is loaded. CPU threads that spin while they wait for one another starve the
    # data loader, and with any other load on the machine a step takes ten times as long. A person's
    # own setting stays.
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
    if OperatorFinder not in sys.meta_path:
        sys.meta_path.append(OperatorFinder)
    if ImportWatcher not in sys.meta_path:
        sys.meta_path.insert(0, ImportWatcher)
