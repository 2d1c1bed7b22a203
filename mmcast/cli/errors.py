"""What every tool does with an error that its user can fix: one readable line, exit status 1."""

import functools
import re
import sys
from collections.abc import Callable
from typing import Any

from mmcast.errors import CASTError


def _curable() -> tuple[type[Exception], ...]:
    """Errors that a user can fix; any other is a mistake in the program and keeps its traceback."""
    config = sys.modules.get(
        'mmengine.config.utils'
    )  # not imported here: tools that run an ONNX file do without it
    return (CASTError, OSError, SyntaxError) + ((config.ConfigParsingError,) if config else ())


def one_line(error: BaseException) -> str:
    """The message of an error as one line; of an error from a data loader's worker, the original
    message.

    torch re-raises a worker's error as the same type with the worker's traceback as its message;
    the last line of that is ``package.SomeError: message``.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if 'Original Traceback' in str(error):
        return re.sub(r'^[\w.]+: ', '', lines[-1])
    return ' '.join(lines)


def report_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Decorates a tool's ``main``: a curable error becomes ``error: ...`` on stderr and exit status
    1.
    """

    @functools.wraps(main)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            main(*args, **kwargs)
        except _curable() as error:
            sys.exit(f'error: {one_line(error)}')

    return wrapper
