"""Errors on the command line: lines, tracebacks, exit statuses."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interrupts import HEEDS_INTERRUPTS

from mmcast.cli.errors import report_errors, reporting_errors
from mmcast.errors import CASTError

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, '-m', 'mmcast']
ENVIRONMENT = dict(os.environ, PYTHONPATH=str(ROOT))
SPLIT = ('split', 'none.json', 'labeled.json', 'unlabeled.json', '--count', '1')


def mmcast(*arguments: str, cwd: Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        text=True,
        **({'capture_output': True} | options),
    )


@pytest.mark.parametrize(
    'arguments, status', [(SPLIT, 1), (('check', 'none.json', '--no-images'), 2)]
)
def test_debug_shows_the_traceback_in_place_of_the_line(arguments, status, tmp_path):
    line = mmcast(*arguments, cwd=tmp_path)
    assert line.stderr.startswith('error: none.json') and line.stderr.count('\n') == 1
    trace = mmcast(*arguments, '--debug', cwd=tmp_path)
    assert trace.stderr.startswith('Traceback') and 'CASTError: none.json' in trace.stderr
    assert line.returncode == trace.returncode == status


def test_a_mistake_in_the_program_keeps_its_traceback(capsys):
    with pytest.raises(ZeroDivisionError) as error, reporting_errors():
        raise ZeroDivisionError
    assert 'please report it' in error.value.__notes__[0]
    with pytest.raises(SystemExit) as stop, reporting_errors(status=2):
        raise ZeroDivisionError
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith('Traceback') and 'please report it' in lines[-1]


@pytest.mark.parametrize(
    'module, arguments, command',
    [
        ('cv2', ('convert', 'toy_cityscapes', 'data'), 'pip install opencv-python;'),
        ('mmengine', ('train', 'cast_toy.py'), 'pip install onedl-mmengine=='),
        ('torch', ('export', 'student', '--out', 'out'), 'pip install torch=='),
    ],
)
def test_a_package_that_is_not_installed_is_one_line(module, arguments, command, tmp_path):
    """As after ``pip install .`` in an environment of its own."""
    code = f"""
import sys

class Absent:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, Absent)
from mmcast.cli.main import main
main()
"""
    done = subprocess.run(
        [sys.executable, '-c', code, *arguments],
        cwd=tmp_path,
        env=ENVIRONMENT,
        text=True,
        capture_output=True,
    )
    assert done.returncode and done.stderr.count('\n') == 1, done.stderr
    assert done.stderr.startswith(f'error: {module} is not installed: {command}')
    assert 'mmcast env' in done.stderr


def test_the_outer_block_decides():
    """As where ``mmcast --debug`` calls a command that reads its arguments itself."""

    @report_errors
    def fail() -> None:
        raise CASTError('wrong')

    with pytest.raises(SystemExit, match='error: wrong'):
        fail()
    with pytest.raises(SystemExit) as stop, reporting_errors(status=2):
        fail()
    assert stop.value.code == 2


@pytest.mark.skipif(os.name == 'nt', reason='Windows sends no SIGINT to one process')
def test_ctrl_c_is_one_line_and_status_130(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, 'convert', 'toy_cityscapes', 'data', '--num-train', '100000'],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=HEEDS_INTERRUPTS,
    )
    while not list(tmp_path.glob('data/leftImg8bit/*/*/*.png')):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == 'interrupted\n' and process.returncode == 130


@pytest.mark.skipif(os.name == 'nt', reason='pipes of Windows report this otherwise')
@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_nobody_reads_the_output(unbuffered, tmp_path, monkeypatch):
    """As in ``mmcast split ... | head -0``."""
    monkeypatch.setitem(ENVIRONMENT, 'PYTHONUNBUFFERED', unbuffered)
    (tmp_path / 'none.json').write_text(
        '{"images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 4}], '
        '"annotations": [], "categories": [{"id": 1, "name": "a"}]}'
    )
    for arguments in (SPLIT, ('--help',)):
        reader, writer = os.pipe()
        os.close(reader)
        done = mmcast(
            *arguments, cwd=tmp_path, capture_output=False, stdout=writer, stderr=subprocess.PIPE
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, ''), arguments


def test_another_broken_pipe_is_an_error(capsys):
    with pytest.raises(SystemExit, match='error: .*worker'), reporting_errors():
        raise BrokenPipeError('a worker has gone')
