"""How much memory this process needed while something ran, on every system."""

import threading
from pathlib import Path
from types import TracebackType

import psutil

_CLEAR_REFS, _STATUS = Path('/proc/self/clear_refs'), Path('/proc/self/status')
_RESET_PEAK = '5'  # see proc(5)
_SECONDS = 0.05


class PeakMemory:
    """Within a ``with`` block, the largest resident memory of this process.

    Linux keeps the peak itself and can forget an earlier one. Elsewhere a thread looks every 50 ms
    and may miss what is gone sooner.

    Attributes:
        megabytes: The peak, in MiB; known at the end of the block, and up to now within it.
    """

    def __enter__(self) -> 'PeakMemory':
        self._peak, self._ended = 0, threading.Event()
        self._exact = _reset_peak()
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
        self._peak = self.megabytes
        self._ended.set()

    @property
    def megabytes(self) -> int:
        if self._ended.is_set():
            return self._peak
        return _read_peak() if self._exact else max(self._peak, _resident())

    def _look(self) -> None:
        while not self._ended.wait(_SECONDS):
            self._peak = max(self._peak, _resident())


def _resident() -> int:
    return psutil.Process().memory_info().rss // 2**20


def _reset_peak() -> bool:
    """Whether Linux forgot the peak up to now."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding='utf-8')
        return _read_peak() > 0
    except (OSError, ValueError):
        return False


def _read_peak() -> int:
    """Linux' peak since it was reset, in MiB."""
    line = next(
        line
        for line in _STATUS.read_text(encoding='utf-8').splitlines()
        if line.startswith('VmHWM')
    )
    return int(line.split()[1]) // 1024
