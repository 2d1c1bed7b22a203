"""Names of a package that are imported when they are asked for. Needs the standard library only.

``tools/check_env.py`` imports mmcast where nothing else may be installed, so this is not
``lazy_loader``.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def attach(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its ``__name__``.
        names: what to find where, by module below the package.
    """
    homes = {name: module for module, found in names.items() for name in found}

    def getattribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f'module {package} has no attribute {name}')
        return getattr(importlib.import_module(f'{package}.{homes[name]}'), name)

    return getattribute, lambda: sorted(homes)
