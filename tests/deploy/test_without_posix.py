"""Everything a person does in one process works where Python has no ``fcntl`` and no ``fork``."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_windows_can_split_check_train_label_and_predict(onnx_file, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, '-X', 'warn_default_encoding'),
            *(str(ROOT / 'tests/helpers/without_posix.py'), str(tmp_path), str(onnx_file)),
        ],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == 'all of it'
