"""What every command does with an error: one line and an exit status, or its traceback."""

import contextlib
import functools
import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from mmcast.cli.machine_errors import of_libraries, of_system, one_line
from mmcast.errors import CASTError

INTERRUPTED = 130  # 128 + SIGINT, as shells say it
PIPE_CLOSED = 141  # 128 + SIGPIPE

_REPORT = (
    "This is a mistake in mmcast, or in a module of yours. If it is mmcast's, please report it "
    'with the lines above, the command and what `mmcast env` prints.'
)

_reporting = ContextVar('reporting', default=False)


@contextlib.contextmanager
def reporting_errors(debug: bool = False, status: int = 1) -> Iterator[None]:
    """Turns an error that a user can fix into one line on stderr and an exit status.

    Any other error is a mistake in the program and keeps its traceback, with a line on reporting
    it. Ctrl-C is one line and status 130; a closed pipe, as in ``mmcast check ... | head``, is
    status 141 without a word. A block inside another one leaves its errors to the outer one.

    Args:
        debug: show the traceback of every error.
        status: the exit status of an error.

    Raises:
        SystemExit: there was an error.
    """
    if _reporting.get():
        yield
        return
    token = _reporting.set(True)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here a closed pipe can still be told from a finished run
    except KeyboardInterrupt as error:  # which may say what is kept
        _exit(': '.join(['interrupted', *map(str, error.args)]), INTERRUPTED, debug)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _stdout_is_closed():
            sys.exit(PIPE_CLOSED)
        message = explain(error)
        if message:
            if not debug:
                _forget(error)
            _exit(f'error: {message}', status, debug)
        error.add_note(_REPORT)
        if status == 1 and not debug:
            raise
        _exit('', status, debug=True)
    finally:
        _reporting.reset(token)


@contextlib.contextmanager
def reporting_errors_anew(debug: bool = False) -> Iterator[None]:
    """:func:`reporting_errors` in a process of its own, which may be forked within such a block."""
    _reporting.set(False)
    with reporting_errors(debug):
        yield


def report_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Decorates the ``main`` of a script: see :func:`reporting_errors`."""

    @functools.wraps(main)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        with reporting_errors():
            main(*args, **kwargs)

    return wrapper


def explain(error: Exception) -> str | None:
    """What is wrong and what to do, in one line; None for a mistake in the program."""
    message = _missing_package(error)
    if message is None and isinstance(error, OSError):
        message = of_system(error)
    if message is None and not isinstance(error, CASTError):  # which may quote a library's error
        message = of_libraries(error)
    if message is None and isinstance(error, _fixable()):
        message = one_line(error)
    return message


def _fixable() -> tuple[type[Exception], ...]:
    # Not imported here: commands that run an ONNX file do without MMEngine.
    config = sys.modules.get('mmengine.config.utils')
    return (CASTError, OSError, SyntaxError) + ((config.ConfigParsingError,) if config else ())


def _missing_package(error: Exception) -> str | None:
    """What to type for a package of the stack that is not installed; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    from mmcast.environment import install_command  # here, as it reads the requirements

    command = install_command(error.name)
    if command is None:
        return None
    return f'{error.name} is not installed: {command}; `mmcast env` lists all that is missing'


def _forget(error: BaseException | None) -> None:
    """Deletes what an error's traceback holds; what fails in that, as half a data loader of torch
    does, is no news.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__context__
        gc.collect()
    finally:
        sys.unraisablehook = hook


def _exit(message: str, status: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    elif status == 1:
        sys.exit(message)
    else:
        print(message, file=sys.stderr)
    sys.exit(status)


def _stdout_is_closed() -> bool:
    """Whether nobody reads stdout any more; then what is left in its buffer goes nowhere.

    An empty line tells: what failed to be written may or may not be in the buffer still.
    """
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
