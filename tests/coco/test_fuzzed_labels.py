"""Damaged label and pseudo-label files are read, mended or refused in one line.

More of them: ``python tests/helpers/fuzzed_labels.py --cases 2000``.
"""

from fuzzed_labels import case
from fuzzing import run_cases


def test_damaged_files_bring_nothing_down():
    failures = run_cases(case, range(150))
    assert not failures, '\n'.join(map(str, failures))
