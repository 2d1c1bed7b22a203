"""The peak of a block is the block's own: not the process's since it began."""

import gc
import mmap
import subprocess
import sys
import threading

import numpy as np
import pytest

from mmcast import memory
from mmcast.memory import PeakMemory, no_cycle_search


def fill(megabytes):
    """Memory that is there, and not just promised; of the system, as what is left of earlier tests
    may hold an array.
    """
    block = mmap.mmap(-1, megabytes * 2**20)
    np.frombuffer(block, np.uint8)[:] = 1
    return block


@pytest.fixture(params=['exact', 'sampled', 'ignored'])
def system(request, monkeypatch, tmp_path):
    """Linux; a system without /proc; a container where resetting the peak has no effect."""
    if request.param == 'sampled':
        monkeypatch.setattr(memory, '_CLEAR_REFS', tmp_path / 'absent' / 'clear_refs')
    elif request.param == 'ignored':
        status = tmp_path / 'status'
        status.write_text('VmHWM:\t99999999 kB\nVmRSS:\t   50000 kB\n')
        monkeypatch.setattr(memory, '_CLEAR_REFS', tmp_path / 'clear_refs')
        monkeypatch.setattr(memory, '_STATUS', status)
    elif not sys.platform.startswith('linux'):
        pytest.skip('Linux alone keeps a peak')
    return request.param


def hold(megabytes, seconds=0.2):
    block = fill(megabytes)
    threading.Event().wait(seconds)  # several looks of the thread
    del block


def test_the_second_of_two_blocks_has_its_own_smaller_peak(system):
    with PeakMemory() as large:
        hold(400)
    with PeakMemory() as small:
        before = small.megabytes
        hold(50)
    # Not 350 more exactly: in between the process may give back what earlier tests left.
    assert large.megabytes - small.megabytes > 300
    assert 20 < small.megabytes - before < 100


def test_within_the_block_the_peak_up_to_now_is_known_and_afterwards_it_stays(system):
    with PeakMemory() as peak:
        before = peak.megabytes
        hold(300)
        within = peak.megabytes
    hold(600)
    assert before > 0 and 200 < within - before < 400
    assert within <= peak.megabytes < within + 100


def test_an_inner_block_takes_nothing_from_the_outer_one(system):
    with PeakMemory() as outer:
        start = outer.megabytes
        hold(400)
        with PeakMemory() as inner:
            hold(100)
        assert inner.megabytes - start < 250
    with PeakMemory() as outer_of_larger:
        with PeakMemory():
            hold(400)
        hold(50)
    assert outer.megabytes - start > 350 and outer_of_larger.megabytes - start > 350


def test_blocks_of_several_threads_end_in_any_order(system):
    """Each sees the whole process."""
    first, second = PeakMemory(), PeakMemory()
    first.__enter__()
    start = first.megabytes
    second.__enter__()
    hold(300)
    first.__exit__(None, None, None)
    hold(500)
    second.__exit__(None, None, None)
    assert 250 < first.megabytes - start < 400 and 450 < second.megabytes - start < 600


def test_an_error_ends_the_block(system):
    with pytest.raises(KeyError), PeakMemory() as peak:
        raise KeyError('x')
    assert peak.megabytes > 0 and peak not in PeakMemory._open
    assert not any(thread.name.endswith('(_look)') for thread in threading.enumerate())


def test_the_search_for_cycles_pauses_in_the_block_alone():
    assert gc.isenabled()
    with pytest.raises(KeyError), no_cycle_search(), no_cycle_search():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='an option of glibc')
@pytest.mark.parametrize('is_kept', [True, False])
def test_freed_memory_stays_at_hand_up_to_a_limit(is_kept):
    """In processes of their own: the option holds for the whole process."""
    script = f"""
import gc
import psutil
from mmcast.memory import keep_freed_memory
if {is_kept}:
    keep_freed_memory()
resident = lambda: psutil.Process().memory_info().rss // 2**20
before = resident()
for count in (20, 60):
    blocks = [bytearray(16 * 2**20) for _ in range(count)]
    del blocks
    print(resident() - before)
"""
    run = subprocess.run([sys.executable, '-c', script], capture_output=True, check=True, text=True)
    some, much = map(int, run.stdout.split())
    assert (some > 250) == is_kept
    assert much < 600  # of 960
