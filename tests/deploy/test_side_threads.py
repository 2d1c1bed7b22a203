"""Items fetched ahead, work done behind: order, bounds, errors, and an early end."""

import threading
import time

import pytest

from mmcast.deploy.side_threads import WorkBehind, fetch_ahead


def counted(log, number=10):
    try:
        for item in range(number):
            log.append(item)
            yield item
    finally:
        log.append('closed')


@pytest.mark.parametrize('depth', [0, 1, 3, 20])
def test_items_keep_their_order_and_no_more_are_fetched_than_allowed(depth):
    log, found = [], []
    for item in fetch_ahead(counted(log), depth):
        time.sleep(0.005)  # fetching has the time to run away
        found.append(item)
        assert len([each for each in log if each != 'closed']) <= item + 1 + depth
    assert found == [*range(10)] and log[-1] == 'closed'


@pytest.mark.parametrize('depth', [0, 2])
def test_an_error_comes_after_the_items_before_it(depth):
    def broken():
        yield from range(3)
        raise ValueError('of the fourth')

    found = []
    with pytest.raises(ValueError, match='of the fourth'):
        found.extend(fetch_ahead(broken(), depth))
    assert found == [0, 1, 2] or depth == 0


@pytest.mark.parametrize('depth', [0, 3])
def test_left_early_it_fetches_no_more_and_closes(depth):
    log = []
    items = fetch_ahead(counted(log), depth)
    assert next(items) == 0
    items.close()
    fetched = len(log)
    assert log[-1] == 'closed' and fetched <= 2 + depth
    assert not [each for each in threading.enumerate() if 'fetch_ahead' in each.name]


@pytest.mark.parametrize('depth', [0, 2])
def test_work_is_done_in_order_and_waited_for(depth):
    done = []

    def work(number):
        time.sleep(0.005)
        done.append(number)

    with WorkBehind(depth) as behind:
        for number in range(8):
            behind.add(work, number)
            assert number + 1 - len(done) <= depth + 1  # one of them is being done
    assert done == [*range(8)]


@pytest.mark.parametrize('depth', [0, 2])
def test_an_error_of_the_work_reaches_its_owner(depth):
    def work(number):
        if number == 3:
            raise ValueError('of the fourth')

    added = []
    with pytest.raises(ValueError, match='of the fourth'), WorkBehind(depth) as behind:
        for number in range(100):
            behind.add(work, number)
            added.append(number)
    assert len(added) < 10


def test_an_error_of_the_last_piece_is_not_lost():
    with pytest.raises(ZeroDivisionError), WorkBehind(4) as behind:
        behind.add(lambda: 1 / 0)


def test_the_owners_error_waits_for_what_was_accepted():
    done = []
    with pytest.raises(KeyboardInterrupt), WorkBehind(4) as behind:
        for number in range(3):
            behind.add(lambda number=number: (time.sleep(0.01), done.append(number)))
        raise KeyboardInterrupt
    assert done == [0, 1, 2]
