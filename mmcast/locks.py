"""Locks that keep two processes from writing to one place, on every system.

Windows has byte 0 of a locked file to its holder alone: nobody else reads the file meanwhile, not
even the same process by another handle.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from filelock import SoftFileLock, Timeout, lock_descriptor, unlock_descriptor

from mmcast.errors import CASTError

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_held: set[int] = set()  # descriptors of the files that this process has locked


@contextlib.contextmanager
def hold_lock(path: Path, in_use: str) -> Iterator[None]:
    """Holds a lock file, whose folder is made if need be; the system releases it when the process
    dies.

    Args:
        path: the lock file. It stays behind: removing it would let two processes lock two files of
            one name.
        in_use: the message where another process holds it; ``{owner}`` becomes the number of that
            process.

    Raises:
        CASTError: another process holds it.
    """
    held = False
    while not held:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('a+', encoding='utf-8') as file, lock_file(file, in_use):
            held = _is_at(path, file)
            if held:
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                yield


def hold_work_dir(work_dir: Path) -> contextlib.AbstractContextManager[None]:
    """Locks a work directory, which is made if need be.

    Raises:
        CASTError: another process holds it.
    """
    return hold_lock(
        work_dir / '.lock',
        f'{work_dir} is in use by another run (process {{owner}}); wait until it ends, or choose '
        'another --work-dir',
    )


@contextlib.contextmanager
def lock_file(file: IO[Any], in_use: str) -> Iterator[None]:
    """Locks an open file; forked children do not inherit the lock.

    If they did, a run that was killed would stay locked as long as its data loader workers live. A
    network file system may know no locks; there a neighbour, ``<name>.lock``, stands for one.

    Raises:
        CASTError: another process has locked it; the message is ``in_use``, see :func:`hold_lock`.
    """
    descriptor = file.fileno()
    try:
        locked = lock_descriptor(descriptor, blocking=False)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        with _soft_lock(file, in_use):
            yield
        return
    if not locked:
        raise CASTError(in_use.replace('{owner}', _owner(file)))
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)
        unlock_descriptor(descriptor)


@contextlib.contextmanager
def _soft_lock(file: IO[Any], in_use: str) -> Iterator[None]:
    """A lock by the existence of a file; one whose process died on this machine counts no more."""
    lock = SoftFileLock(f'{file.name}.lock', timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise CASTError(in_use.replace('{owner}', _owner(file))) from error
    try:
        yield
    finally:
        lock.release()


def _is_at(path: Path, file: IO[Any]) -> bool:
    """Whether an open file is still what others find there: its folder may have been removed before
    it was locked. Windows removes nothing that is open.
    """
    if os.name == 'nt':
        return True
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _owner(file: IO[Any]) -> str:
    """The number that the holder of a lock file wrote into it; Windows lets nobody else read it."""
    try:
        file.seek(0)
        return file.read().strip() or 'unknown'
    except (OSError, ValueError):
        return 'unknown'


def _let_go_in_child() -> None:
    """Points the child's copies of the descriptors elsewhere; closed ones would be closed once more
    later.
    """
    for descriptor in _held:
        os.close(descriptor)  # first, as no other one may be free
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != descriptor:
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
    _held.clear()


if hasattr(os, 'register_at_fork'):  # Windows starts its children anew
    os.register_at_fork(after_in_child=_let_go_in_child)
