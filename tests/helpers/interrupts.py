"""Ctrl-C for processes that tests start."""

import signal
from functools import partial

# preexec_fn of a process that is to be sent SIGINT: a shell's background jobs, and so tests that
# run in one, ignore it and leave that to their children.
HEEDS_INTERRUPTS = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
