"""How much memory this process needed while something ran, on every system; a pause of Python's
search for cycles; freed memory that stays at hand.
"""

import contextlib
import ctypes
import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import psutil

_CLEAR_REFS, _STATUS = Path('/proc/self/clear_refs'), Path('/proc/self/status')
_RESET_PEAK = '5'  # see proc(5)
_SLACK = 16  # MiB that other threads may take between two looks
_SECONDS = 0.05
# Parameters of glibc's mallopt(3), and the largest threshold that it takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _LARGEST_THRESHOLD = -1, -3, 32 * 2**20
_KEPT = 512 * 2**20  # bytes


@contextlib.contextmanager
def no_cycle_search() -> Iterator[None]:
    """Within the block, Python does not look for cycles of references that nobody holds.

    The millions of objects of a large label file have none, but are walked through again and again
    while more of them are made: half of the time that it takes to parse one. May be nested.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def keep_freed_memory() -> None:
    """Lets glibc keep up to 512 MiB of freed memory for the next allocation; nothing elsewhere.

    By itself it gives each large tensor back to the system, which clears the pages of the next one:
    5 to 10 % of a training step on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if sys.platform == 'linux' else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


class PeakMemory:
    """Within a ``with`` block, the largest resident memory of this process.

    Linux keeps the peak itself and can forget an earlier one. Elsewhere a thread looks every 50 ms
    and may miss what is gone sooner. Blocks may lie within each other or in several threads; all of
    them see the memory of the whole process, that of its children is not counted.

    Attributes:
        megabytes: The peak, in MiB; known at the end of the block, and up to now within it.
    """

    # Of the process, whose one peak they share: what a new block makes Linux forget, the others
    # note before.
    _lock = threading.Lock()
    _open: set['PeakMemory'] = set()

    def __init__(self) -> None:
        self._peak, self._exact = 0, False
        self._ended = threading.Event()

    def __enter__(self) -> 'PeakMemory':
        self._peak = 0
        self._ended.clear()
        with self._lock:
            for other in self._open:
                other._peak = other.megabytes
            self._exact = _reset_peak()
            self._open.add(self)
        if not self._exact:
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._peak = self.megabytes
            self._open.remove(self)
            self._ended.set()
        if not self._exact:
            self._thread.join()

    @property
    def megabytes(self) -> int:
        if self._ended.is_set():
            return self._peak
        return max(self._peak, _read_status('VmHWM') if self._exact else _resident())

    def _look(self) -> None:
        while not self._ended.wait(_SECONDS):
            resident = _resident()
            with self._lock:
                if not self._ended.is_set():
                    self._peak = max(self._peak, resident)


def _resident() -> int:
    return psutil.Process().memory_info().rss // 2**20


def _reset_peak() -> bool:
    """Whether Linux forgot the peak up to now; some containers accept the request and ignore it."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding='utf-8')
        return 0 < _read_status('VmHWM') <= _read_status('VmRSS') + _SLACK
    except (OSError, ValueError):
        return False


def _read_status(name: str) -> int:
    """A figure of this process in MiB; Linux' peak since it was reset is ``VmHWM``.

    Raises:
        OSError, ValueError: the system does not tell it.
    """
    for line in _STATUS.read_text(encoding='utf-8').splitlines():
        if line.startswith(f'{name}:'):
            return int(line.split()[1]) // 1024
    raise ValueError(f'{_STATUS} has no {name}')
