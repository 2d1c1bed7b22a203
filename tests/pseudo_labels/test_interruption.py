"""Killed twenty times, once on two processes instead of one: the file is that of a run nobody
disturbed.
"""

import gc
import json
import multiprocessing
import os
import random
import signal
import socket
import time
from collections import Counter

import pytest
import torch
from colour_teacher import ColourTeacher, generate, make_config, make_data
from mmengine.dist import is_distributed

from mmcast.training.distributed import start_distributed

IMAGES, SECONDS = 80, 0.01
FORK = multiprocessing.get_context('fork')


@pytest.fixture
def data(tmp_path):
    gc.freeze()  # see test_generate.py
    make_data(tmp_path, IMAGES)
    (tmp_path / 'images/sub/007.png').write_bytes(b'no image')
    return tmp_path


def rank(data, number, count, port):
    """One process of a run, in a process group with its loaders: a kill reaches them too."""
    os.setpgid(0, 0)
    torch.set_num_threads(1)  # OpenMP's other threads did not come along, and would be waited for
    forward = ColourTeacher.forward

    def noted(self, inputs, data_samples, mode='predict'):
        with open(data / 'predicted.txt', 'a') as file:
            file.write(f'{data_samples[0].img_id}\n')
        return forward(self, inputs, data_samples, mode)

    ColourTeacher.forward = noted
    if count > 1:
        os.environ.update(
            RANK=str(number),
            LOCAL_RANK=str(number),
            WORLD_SIZE=str(count),
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=str(port),
        )
        start_distributed('pytorch')
        assert is_distributed()
    generate(data, config=make_config(seconds=SECONDS), num_workers=1, distributed=count > 1)


def start(data, count):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    processes = [
        FORK.Process(target=rank, args=(data, number, count, port)) for number in range(count)
    ]
    for process in processes:
        process.start()
    return processes


def kill(processes):
    for process in processes:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # before it had its group
            process.kill()
        process.join()


def test_killed_at_twenty_moments_ends_in_the_same_file(data):
    generate(data, 'whole.json', config=make_config(seconds=SECONDS))
    draw = random.Random(0)
    folder, interrupted = data / 'labels.json.shards', 0
    for turn in range(20):
        before = (
            sum(path.stat().st_size for path in folder.glob('shard*')) if folder.exists() else 0
        )
        processes = start(data, count=2 if turn == 10 else 1)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (data / 'labels.json').exists():
            time.sleep(0.001)
            if (
                folder.exists()
                and sum(path.stat().st_size for path in folder.glob('shard*')) != before
            ):
                break  # it labels
        time.sleep(draw.uniform(0, 4 * SECONDS))
        kill(processes)
        interrupted += not (data / 'labels.json').exists()
    assert interrupted >= 15
    assert len(list(folder.glob('shard*'))) == 2
    for process in start(data, count=1):
        process.join(60)
        assert process.exitcode == 0
    assert (data / 'labels.json').read_bytes() == (data / 'whole.json').read_bytes()
    again = Counter((data / 'predicted.txt').read_text().split())
    assert set(again) == {str(10 + number) for number in range(IMAGES) if number != 7}
    # A kill costs the images whose masks wait to be encoded and the one at the teacher, on each
    # process.
    assert again.total() - len(again) <= 21 * 7


def test_two_processes_share_the_images(data):
    generate(data, 'whole.json', config=make_config(seconds=SECONDS))
    for process in start(data, count=2):
        process.join(60)
        assert process.exitcode == 0
    assert (data / 'labels.json').read_bytes() == (data / 'whole.json').read_bytes()
    assert max(Counter((data / 'predicted.txt').read_text().split()).values()) == 1
    assert len(json.loads((data / 'labels.json').read_text())['images']) == IMAGES - 1
