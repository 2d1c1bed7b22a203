"""Work in several processes, without piling up what is to be done or was done."""

import gc
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from mmcast.errors import CASTError
from mmcast.processes import end_with_parent

_shared: Any = None


def map_in_processes(
    function: Callable, items: Iterable, shared: Any, workers: int, option: str = '--workers'
) -> Iterator:
    """The results of ``function(item, shared)`` in order.

    Args:
        function: Picklable.
        items: Taken a few at a time, not long before their results are asked for.
        shared: Passed to every process only once.
        workers: Processes; 0 works in this one.
        option: What a person gives fewer processes with.

    Raises:
        CASTError: ``workers`` is below 0, or a process was killed.
    """
    if workers < 0:
        raise CASTError(f'{option} is {workers}: give a number of processes, 0 for none but this')
    if not workers:
        yield from (function(item, shared) for item in items)
        return
    waiting: deque = deque()
    try:
        with ProcessPoolExecutor(workers, initializer=_set_shared, initargs=(shared,)) as pool:
            for item in items:
                waiting.append(pool.submit(_call, function, item))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise CASTError(
            'a process of the command was killed, probably for lack of memory: call it again with '
            f'fewer {option}'
        ) from error


def available_processors() -> int:
    """How many processors this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _set_shared(shared: Any) -> None:
    global _shared
    _shared = shared
    end_with_parent()
    # or every collection would walk through, and thereby copy, what was forked from the parent
    gc.freeze()


def _call(function: Callable, item: Any) -> Any:
    return function(item, _shared)
