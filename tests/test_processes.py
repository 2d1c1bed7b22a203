"""Nothing is left of a command whose main process is killed."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from kill_runs import Start
from pipelines import torchrun

ROOT = Path(__file__).resolve().parent.parent
LOADERS = """
import json, sys, threading, time
import mmcast
import numpy as np
import psutil
from torch.utils.data import Dataset
from mmcast.coco.parallel import map_in_processes
from mmcast.coco.converters.instance_maps import convert_all
from mmcast.pseudo_labels.images import load_ahead
from mmcast.training.runner import _Runner

class Large(Dataset):
    def __len__(self):
        return 1000

    def __getitem__(self, index):
        return np.zeros(2**20)

def wait(*args):
    time.sleep(0.1)

common = dict(dataset=Large(), sampler=dict(type='DefaultSampler', shuffle=False), num_workers=2)
common['collate_fn'] = dict(type='pseudo_collate')
waiting = [
    iter(_Runner.build_dataloader(dict(common, batch_size=2, persistent_workers=True), seed=1)),
    iter(_Runner.build_dataloader(dict(common, batch_size=1))),
    load_ahead(Large(), list(range(1000)), 2),
    map_in_processes(wait, range(1000), None, 2),
]
for each in waiting:
    next(each)
converter = (wait, list('abcd') * 1000, 'x', 2, False)
threading.Thread(target=convert_all, args=converter, daemon=True).start()
time.sleep(0.5)
print(json.dumps([child.pid for child in psutil.Process().children()]), flush=True)
time.sleep(600)
"""


@pytest.fixture
def start():
    """Starts a script, and leaves nothing of it."""
    running = []

    def call(*command: str, **options) -> subprocess.Popen:
        environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
        running.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **options)
        )
        return running[-1]

    yield call
    for process in running:
        process.kill()
        process.communicate()


def left_of(pids: list[int], seconds: float) -> list[int]:
    """Which processes there still are after this time; waits no longer than needed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(map(alive, pids)):
        time.sleep(0.2)
    left = [pid for pid in pids if alive(pid)]
    for pid in left:
        psutil.Process(pid).kill()
    return left


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='the pools of this script are forked')
def test_loaders_and_pools_end_with_a_killed_process(start):
    """Also those that wait to write into a full pipe, or to read from one that siblings hold."""
    process = start(sys.executable, '-c', LOADERS)
    pids = json.loads(process.stdout.readline())
    assert len(pids) == 10
    process.kill()
    assert left_of(pids, 20) == []


RUN = """
custom_imports = dict(imports=['toy_run'])
default_scope = 'mmcast'
model = dict(type='ToyModel')
train_dataloader = dict(batch_size=2, num_workers=1, dataset=dict(type='ToyDataset'),
                        sampler=dict(type='InfiniteSampler', shuffle=True))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1000000)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False))
log_level = 'ERROR'
"""


TORCHRUN = [*torchrun(2), 'tools/train.py', '--launcher', 'pytorch']
OURS = [sys.executable, 'tools/train.py', '--processes', '2']


@pytest.mark.parametrize(
    'command, killed, number',
    [
        (TORCHRUN, 'torchrun', 3),
        (TORCHRUN, 'torchrun', 5),
        (TORCHRUN, 'rank', 5),
        (OURS, 'torchrun', 5),
        (OURS, 'rank', 5),
    ],
    ids=lambda value: {id(TORCHRUN): 'torchrun', id(OURS): 'processes'}.get(id(value), str(value)),
)
def test_nothing_is_left_of_two_processes_of_which_one_was_killed(
    command, killed, number, tmp_path
):
    """Ranks that torchrun or the command itself started, at once or with processes that load their
    images.
    """
    (tmp_path / 'run.py').write_text(RUN)
    command = [*command, str(tmp_path / 'run.py')]
    start = Start([*command, '--work-dir', str(tmp_path / 'run')], tmp_path / 'log.txt')
    try:
        while len(start.processes()) < number:
            assert start.process.poll() is None, start.log.read_text()
            time.sleep(0.1)
        assert start.kill(killed, random.Random(0))
    finally:
        _, left = start.left()
    assert left == []
