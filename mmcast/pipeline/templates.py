"""``{name}`` templates in a pipeline config: variables, ``{seed}``, ``{work_dir}`` and outputs of
steps.
"""

import re
from collections.abc import Callable
from typing import Any

_TEMPLATE = re.compile(r'\{([A-Za-z_]\w*(?:\.\w+)*)\}')


def resolve(value: Any, lookup: Callable[[str], Any]) -> Any:
    """Replaces templates in the strings of nested dicts and lists.

    Args:
        value: anything; only the strings in it are looked at (dict keys are not).
        lookup: gives the value of a name, raises for an unknown one.

    Returns:
        A copy. A string that is exactly one template becomes the value itself, of whatever type.
    """
    if isinstance(value, dict):
        return {key: resolve(item, lookup) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(resolve(item, lookup) for item in value)
    if not isinstance(value, str):
        return value
    whole = _TEMPLATE.fullmatch(value)
    if whole:
        return lookup(whole[1])
    return _TEMPLATE.sub(lambda match: str(lookup(match[1])), value)
