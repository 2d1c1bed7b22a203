"""Several processes: joining them, and letting the first do what only one may do."""

import atexit
import os
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from mmengine.dist import (
    barrier,
    broadcast_object_list,
    init_dist,
    is_distributed,
    is_main_process,
)
from torch import multiprocessing, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcast.errors import CASTError
from mmcast.processes import end_with_parent, end_with_torchrun

_DAY = timedelta(days=1)
_PATIENCE = 30.0  # seconds for torchrun to answer


def start_distributed(launcher: str) -> None:
    """Joins the process group before the first Runner would, as rank 0 decides from the start.

    Raises:
        CASTError: torchrun, which started this process, is gone, or did not start it.
    """
    if launcher == 'none' or is_distributed():
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise CASTError(
            '--launcher pytorch is for processes that torchrun starts: torchrun '
            '--nproc_per_node=2 tools/train.py ...; leave it out for one process'
        )
    end_with_torchrun()
    _check_torchrun()
    if torch.cuda.is_available():
        init_dist(
            launcher, timeout=int(_DAY.total_seconds())
        )  # ranks wait for one another's pseudo-labels
    else:  # MMEngine's init_dist selects a GPU in any case
        os.environ.setdefault('OMP_NUM_THREADS', '1')
        torch.distributed.init_process_group('gloo', timeout=_DAY)
        atexit.register(_leave_group)


def run_processes(number: int, function: Callable[[], Any]) -> None:
    """Runs a function in processes of this machine that share their work, as torchrun would with
    ``--launcher pytorch``; in Linux without a GPU, they have what is imported here.

    Args:
        number: of processes.
        function: that can be pickled.

    Raises:
        SystemExit: a process failed, which has said why; the others are ended.
    """
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    # A forked process cannot use CUDA if this one has, and macOS ends forked ones at random.
    may_fork = sys.platform == 'linux' and not torch.cuda.is_available()
    processes = multiprocessing.start_processes(
        _run_rank,
        (number, port, function),
        number,
        join=False,
        start_method='fork' if may_fork else 'spawn',
    )
    try:
        while not processes.join():
            pass
    except multiprocessing.ProcessExitedException as error:
        if error.exit_code < 0:
            print(
                f'error: process {error.error_index} of {number} was killed by signal '
                f'{-error.exit_code}, by the system mostly for lack of memory: give fewer '
                '--processes, num_workers or a smaller batch',
                file=sys.stderr,
            )
        raise SystemExit(error.exit_code if error.exit_code > 0 else 1) from error


def _run_rank(rank: int, number: int, port: int, function: Callable[[], Any]) -> None:
    end_with_parent()
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(number),
        LOCAL_WORLD_SIZE=str(number),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    )
    try:
        function()
    finally:
        _leave_group()


def _check_torchrun() -> None:
    """A rank whose torchrun was killed before it could look would wait a day for its store."""
    if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        return
    place = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    try:
        socket.create_connection(place, _PATIENCE).close()
    except OSError as error:
        raise CASTError(
            f'torchrun does not answer at {place[0]}:{place[1]} ({error.strerror or error}): it '
            'has ended, or its port is blocked; give the same command again'
        ) from error


def _leave_group() -> None:
    """Ends gloo's threads. At the end of the interpreter they abort a process that has finished its
    work, now and then, and torchrun takes that for a failure.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_sync_bn(model: nn.Module, sync_bn: str) -> None:
    """Looks for what MMEngine's ``sync_bn`` would lose, which puts a bare ``SyncBatchNorm`` in the
    place of every batch normalisation, also of one that does more than normalise.

    Raises:
        CASTError: there is such a one, as in timm's EfficientNets, where it holds the activation.
    """
    plain = _BatchNorm.forward, nn.SyncBatchNorm.forward
    lost = {
        name: part
        for name, part in model.named_modules()
        if isinstance(part, _BatchNorm) and type(part).forward not in plain
    }
    if lost:
        name, part = next(iter(lost.items()))
        raise CASTError(
            f'sync_bn={sync_bn!r} would take the activations out of {len(lost)} layers, such as '
            f'{name}, whose {type(part).__name__} normalises and activates: leave out sync_bn; a '
            'TimmEncoder with norm_eval=True (the default) keeps its statistics and needs none'
        )


def on_main(function: Callable[[], Any], share: bool = False) -> Any:
    """Runs a function on rank 0 while the others wait.

    Args:
        function: what to run.
        share: whether the other ranks get its result too (they get None otherwise).

    Raises:
        Exception: what it raised, on every rank, so that no rank waits for a dead one.
    """
    result, error = None, None
    if is_main_process():
        try:
            result = function()
        except Exception as caught:
            error = caught
    shared = [result if share else None, error]
    broadcast_object_list(shared)
    barrier()
    if shared[1] is not None:
        raise shared[1]
    return result if is_main_process() else shared[0]


def say(line: str) -> None:
    """Prints a line at once, on the main process only."""
    if is_main_process():
        print(line, flush=True)
