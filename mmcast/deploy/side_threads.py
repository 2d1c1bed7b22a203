"""Work beside the network: items fetched ahead of it, results finished behind it.

OpenCV and the runtimes let other threads of Python run, so that decoding, drawing and writing take
no time of the network's where there is a processor left for them.
"""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar('Item')


def fetch_ahead(items: Generator[Item, None, None], depth: int) -> Generator[Item, None, None]:
    """The same items in the same order, up to ``depth`` of which a thread fetches ahead.

    An error of ``items`` comes where its item would have come. Left early, it stops fetching and
    closes ``items``.

    Args:
        items: Of a generator.
        depth: 0 fetches each when it is asked for, without a thread.
    """
    if not depth:
        yield from items
        return
    end: Any = object()
    with ThreadPoolExecutor(1, 'fetch_ahead') as thread:
        waiting = deque(thread.submit(next, items, end) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(thread.submit(next, items, end))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)
            items.close()


class WorkBehind:
    """A thread that does pieces of work in their order, while its owner goes on.

    As a context manager it waits, at the end and after an error of the owner's too, until all is
    done that was accepted.

    Args:
        depth: So many pieces may wait, then the owner does. 0 does them at once, without a thread.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._thread = ThreadPoolExecutor(1, 'work_behind') if depth else None
        self._waiting: deque[Future] = deque()

    def __enter__(self) -> 'WorkBehind':
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._thread is not None:
            self._thread.shutdown()
        while self._waiting and kind is None:  # the owner's own error comes first
            self._waiting.popleft().result()

    def add(self, work: Callable[..., object], *args: Any) -> None:
        """Accepts a piece of work.

        Raises:
            Exception: of this or an earlier piece.
        """
        if self._thread is None:
            work(*args)
            return
        while self._waiting and (len(self._waiting) >= self._depth or self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(work, *args))
