"""Processes that end when the one that started them does, however that ended."""

import multiprocessing
import os
import threading
import time

_INTERVAL = 1.0  # seconds between two looks at the parent
_watching = 0  # the process that watches; a forked child of it has none of its threads


def end_with_parent() -> None:
    """Ends this process within seconds after its parent died; to be called in the child, early.

    Left to themselves the children of a killed process wait for ever: the worker of a torch
    ``DataLoader`` to write its last batch into a pipe, that of a process pool to read its next task
    from one, as the siblings hold the other ends of these pipes open.
    """
    global _watching
    if _watching != os.getpid():
        _watching = os.getpid()
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def end_with_torchrun() -> None:
    """The same for a rank that torchrun started, whose killed ranks' siblings it ends itself; other
    processes are left alone, as their parent may be a shell.
    """
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        end_with_parent()


def _watch(parent: int) -> None:
    creator = multiprocessing.parent_process()  # None where it was started in another way
    # Of a forked process, whose siblings keep the sentinel of its creator open, only the number of
    # the parent tells at once; on Windows, or from a fork server, only the sentinel does.
    while os.getppid() == parent and (creator is None or creator.is_alive()):
        time.sleep(_INTERVAL)
    os._exit(1)
