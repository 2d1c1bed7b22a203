"""The floors of the package, as pyproject.toml lists them: imports point down, without circles."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINT_IMPORTS = Path(sys.executable).parent / 'lint-imports'


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [LINT_IMPORTS, '--config', 'pyproject.toml', '--no-cache'],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=str(folder)),
        capture_output=True,
        text=True,
    )


def test_no_circle_and_no_import_from_a_lower_floor_to_a_higher_one():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    'module, line, broken',
    [
        ('models/cast.py', 'import mmcast.pseudo_labels.store', 'No floor imports a higher one'),
        ('coco/reading.py', 'import mmcast.coco.splits', 'No circle of files'),
        ('masks/rle.py', 'def late():\n    import torch', 'need neither torch nor OpenMMLab'),
    ],
)
def test_a_wrong_import_is_found(tmp_path, module, line, broken):
    shutil.copy(ROOT / 'pyproject.toml', tmp_path)
    shutil.copytree(ROOT / 'mmcast', tmp_path / 'mmcast', ignore=shutil.ignore_patterns('.mim'))
    with (tmp_path / 'mmcast' / module).open('a') as file:
        file.write(f'\n{line}\n')
    done = lint_imports(tmp_path)
    (verdict,) = [row for row in done.stdout.splitlines() if broken in row and 'BROKEN' in row]
    assert done.returncode == 1 and verdict
