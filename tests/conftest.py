"""Shared by all tests; the markers are declared in pyproject.toml."""
import os

# Before torch is loaded; see tools/train.py. Child processes inherit it.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

import mmcast  # noqa: E402,F401  before any test module imports mmdet
import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked ``gpu`` where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker('gpu'):
            item.add_marker(pytest.mark.skip(reason='no CUDA device'))
