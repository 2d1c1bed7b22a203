"""Seeded damage to files, and a watch over what reads them.

A reader may refuse a damaged file with a `CASTError` or take what is left of it. It must not end in
another error, take more than ten seconds or two gigabytes, or bring its process down.
"""

import json
import multiprocessing
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil

from mmcast.errors import CASTError

SECONDS = 10  # of one case
GIGABYTES = 2  # of the process, libraries included
_START_SECONDS = 120  # of a new process: it imports torch on a loaded machine
_LOOK_SECONDS = 0.05

# What takes the place of a value: other types, and numbers at the ends of what a file can hold.
_STRANGERS = (
    *(None, True, False, '', 'x', '0', 'ü\u2028\ud800', '../x', [], {}, [[]], [None], {'a': 1}),
    *(0, 1, -1, 2, 255, 2**31, -(2**31), 2**63, 10**30, -(10**30), 0.0, -0.5, 0.5, 1e-300, 1e308),
    *(float('nan'), float('inf'), float('-inf')),
)


def damage_bytes(data: bytes, rng: np.random.Generator, changes: int = 3) -> bytes:
    """One to ``changes`` bytes or pieces flipped, cut out, inserted, repeated or cut off."""
    for _ in range(rng.integers(1, changes + 1)):
        start, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
        end = min(end, start + int(2 ** rng.integers(0, 12)))
        piece = data[start:end]
        kind = rng.integers(7)
        if kind == 0:
            piece = bytes(byte ^ (1 << int(rng.integers(8))) for byte in piece[:1]) + piece[1:]
        elif kind == 1:
            piece = rng.bytes(len(piece))
        elif kind == 2:
            piece = b''
        elif kind == 3:
            piece = piece * 2
        elif kind == 4:
            piece = rng.bytes(int(rng.integers(1, 9))) + piece
        elif kind == 5:
            piece = bytes(len(piece))
        elif kind == 6 and rng.random() < 0.3:
            data, piece = data[:end], data[start:end]
        data = data[:start] + piece + data[end:]
    return data


def damage_json(content: Any, rng: np.random.Generator, changes: int = 3) -> Any:
    """A copy with one to ``changes`` values replaced, moved, repeated or left out, at any depth."""
    content = json.loads(json.dumps(content))
    for _ in range(1 if rng.random() < 0.5 else rng.integers(1, changes + 1)):
        places = list(_places(content))
        if not places:
            return content
        choice = places
        if rng.random() < 0.5:  # lists of coordinates have most places, but keys matter more
            names = sorted({name for _, _, name in places})
            name = names[rng.integers(len(names))]
            choice = [place for place in places if place[2] == name]
        holder, key, _ = choice[rng.integers(len(choice))]
        _damage_value(holder, key, places, rng)
    return content


def _places(value: Any, name: str = '') -> Iterable[tuple[Any, Any, str]]:
    """All (list or dict, index or key, name of the innermost key)."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        own = key if isinstance(value, dict) else f'{name}[]'
        yield value, key, own
        if isinstance(inner, dict | list):
            yield from _places(inner, own)


def _damage_value(holder: Any, key: Any, places: list, rng: np.random.Generator) -> None:
    kind = rng.integers(8)
    value = holder[key]
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = [value, value]
    elif kind == 2 and isinstance(value, list) and value:
        holder[key] = (value * 2)[: len(value) + int(rng.integers(1, len(value) + 1))]
    elif kind == 3:  # a value from elsewhere in the file
        other, place, _ = places[rng.integers(len(places))]
        if isinstance(other, dict) and place in other:
            holder[key] = json.loads(json.dumps(other[place]))
    elif kind == 4 and isinstance(value, str) and value:
        holder[key] = damage_bytes(value.encode(), rng, 1).decode(errors='replace')
    elif kind >= 5 and type(value) in (int, float):
        holder[key] = value * [-1, 2, 1000, 1e9, 0.5][rng.integers(5)] + int(rng.integers(-1, 2))
    else:
        holder[key] = _STRANGERS[rng.integers(len(_STRANGERS))]


def damage_json_file(content: Any, rng: np.random.Generator) -> bytes:
    """A JSON file of damaged values, damaged bytes, or both, or in another encoding."""
    kind = rng.random()
    if kind < 0.9:
        content = damage_json(content, rng)
    data = json.dumps(content).encode()
    if kind > 0.85:
        data = damage_bytes(data, rng)
    if kind < 0.05:
        data = b'\xef\xbb\xbf' + data
    elif kind < 0.07:
        data = data.decode().encode('utf-16')
    return data


@dataclass
class Failure:
    """A case that did what no damaged file may make a reader do."""

    seed: int
    what: str

    def __str__(self) -> str:
        return f'seed {self.seed}: {self.what}'


def run_cases(
    case: Callable[[int], object],
    seeds: Iterable[int],
    seconds: float = SECONDS,
    gigabytes: float = GIGABYTES,
) -> list[Failure]:
    """Runs ``case(seed)`` for each seed in a process of its own, which is watched.

    The process continues with the next case, and is a new one only after a case that killed it or
    had to be stopped. ``case`` is pickled, so it is a function of a module or a ``partial`` of one.
    """
    failures: list[Failure] = []
    left = list(seeds)
    while left:
        found, ended = _run_in_process(case, left, seconds, gigabytes)
        failures += found
        left = left[ended:]
    return failures


def _run_in_process(
    case: Callable[[int], object], seeds: list[int], seconds: float, gigabytes: float
) -> tuple[list[Failure], int]:
    """The failures, and how many cases ended, one way or the other."""
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(case, seeds, sender), daemon=True)
    process.start()
    sender.close()
    failures: list[Failure] = []
    ended, waited, limit = 0, 0.0, _START_SECONDS
    while ended < len(seeds):
        problem = None
        try:
            if receiver.poll(_LOOK_SECONDS):
                message, waited, limit = receiver.recv(), 0.0, seconds
                if message is not None:
                    ended += 1
                    if message:
                        failures.append(Failure(seeds[ended - 1], message))
                continue
            waited += _LOOK_SECONDS
            if waited > limit:
                problem = f'ran for more than {limit:g} s'
            elif _memory(process.pid) > gigabytes * 2**30:
                problem = f'took more than {gigabytes:g} GB'
        except EOFError:
            process.join()
            problem = f'ended its process with status {process.exitcode}'
        if problem:
            failures.append(Failure(seeds[ended], problem))
            process.kill()
            ended += 1
            break
    process.join()
    return failures, ended


def _memory(pid: int | None) -> int:
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


def _run(case: Callable[[int], object], seeds: list[int], sender: Connection) -> None:
    """Sends None when it begins, then '' or what went wrong of every case."""
    sender.send(None)
    for seed in seeds:
        problem = ''
        try:
            case(seed)
        except CASTError as error:
            if '\n' in str(error).strip() or not str(error).strip():
                problem = f'a CASTError that is not one line: {str(error)[:500]!r}'
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-3:]
            lines = ' < '.join(f'{step.filename}:{step.lineno}' for step in reversed(where))
            problem = f'{type(error).__name__}: {str(error)[:200]!r} at {lines}'
        sender.send(problem)
