"""Locks between processes: natively, and where the system or the file system knows none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmcast.errors import CASTError
from mmcast.locks import hold_lock

ROOT = Path(__file__).resolve().parent.parent
HOLD = """
import sys
{blocked}
from pathlib import Path
from mmcast.locks import hold_lock

with hold_lock(Path(sys.argv[1]), 'taken by {{owner}}'):
    print('held', flush=True)
    sys.stdin.read()
"""
BLOCKED = "sys.modules['fcntl'] = None"


@pytest.fixture(params=['', BLOCKED], ids=['native', 'by a file'])
def start(request, tmp_path):
    """Starts a process that holds the lock until it is killed or its stdin ends."""
    running = []

    def call() -> subprocess.Popen:
        process = subprocess.Popen(
            [
                sys.executable,
                '-c',
                HOLD.format(blocked=request.param),
                str(tmp_path / 'a' / '.lock'),
            ],
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield call
    for process in running:
        process.kill()
        process.communicate()


def test_a_second_process_is_told_who_holds_it(start):
    first = start()
    assert first.stdout.readline() == 'held\n'
    second = start()
    assert f'CASTError: taken by {first.pid}' in second.communicate()[1]


@pytest.mark.parametrize('end', ['kill', 'leave'])
def test_the_next_process_gets_it(start, end):
    first = start()
    assert first.stdout.readline() == 'held\n'
    if end == 'kill':
        first.kill()
    first.communicate()
    assert start().stdout.readline() == 'held\n'


def test_one_process_does_not_hold_it_twice(tmp_path):
    with hold_lock(tmp_path / '.lock', 'taken by {owner}'):
        with (
            pytest.raises(CASTError, match=f'taken by {os.getpid()}'),
            hold_lock(tmp_path / '.lock', 'taken by {owner}'),
        ):
            pass
