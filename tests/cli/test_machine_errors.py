"""Errors of the system and of libraries, as one line that says what to do."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from toy_run import SINGLE_RUN

from mmcast.cli.errors import explain, reporting_errors
from mmcast.cli.machine_errors import of_libraries, of_system
from mmcast.cli.main import main
from mmcast.errors import CASTError

ROOT = Path(__file__).parents[2]
DYING = """
import os, signal
from mmengine.registry import DATASETS
from toy_run import ToyDataset
from torch.utils.data import get_worker_info

@DATASETS.register_module(force=True)
class DyingDataset(ToyDataset):
    def __getitem__(self, index):
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / 'tests/helpers'))
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    Path('single.py').write_text(SINGLE_RUN)
    return tmp_path


def line_of(*arguments: str) -> str:
    """The error line of ``mmcast`` in this process, which ends with status 1."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    line = str(stop.value.code)
    assert line.startswith('error: ') and '\n' not in line
    return line


def test_a_killed_loader_of_images(folder):
    Path('dying.py').write_text(DYING)
    loader = "num_workers=0, dataset=dict(type='ToyDataset')"
    Path('single.py').write_text(
        SINGLE_RUN.replace("['toy_run']", "['toy_run', 'dying']").replace(
            loader, "num_workers=1, dataset=dict(type='DyingDataset')"
        )
    )
    line = line_of('train', 'single.py')
    assert 'was killed' in line and 'num_workers=0' in line


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no such limit')
def test_too_many_open_files(folder):
    """MMEngine raises the soft limit, so this is the hard one, in a process of its own."""
    code = """
import resource
import mmengine.runner.runner
from mmcast.cli.main import main
mmengine.runner.runner.collect_env = dict  # it asks compilers
resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
main(['train', 'single.py', '--cfg-options', 'train_dataloader.num_workers=8'])
"""
    path = os.pathsep.join([str(ROOT), str(ROOT / 'tests/helpers')])
    command = [sys.executable, '-W', 'ignore', '-c', code]
    environment = dict(os.environ, PYTHONPATH=path)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr
    assert done.stderr.startswith('error: too many open files; raise the limit')


@pytest.mark.parametrize('name', ['cuda', 'cuda:7', 'gpu', 'meta'])
def test_a_device_that_is_not_there(folder, name, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    if name.startswith('cuda') and torch.cuda.device_count() > 7 * (name != 'cuda'):
        pytest.skip('it is there')
    for command in (
        ('label', 'single.py', 'x.pth', '--out', 'o.json'),
        ('predict', 'single.py', 'x.png', '--checkpoint', 'x.pth', '--out', 'out'),
        ('benchmark', 'single.py'),
    ):
        assert f"device '{name}'" in line_of(*command, '--device', name)
    assert sorted(Path().iterdir()) == [Path('single.py')]


def test_a_config_names_what_is_not_there(folder):
    options = ('--cfg-options', 'model.type=ToyModle')
    assert 'ToyModle is not in the registry' in line_of('train', 'single.py', *options)
    Path('single.py').write_text(SINGLE_RUN.replace("type='ToyModel'", "type='ToyModel', colour=1"))
    line = line_of('train', 'single.py', '--work-dir', 'other')
    assert "unexpected keyword argument 'colour': correct the config" in line


def test_a_value_that_a_library_refuses(folder):
    for number, option in enumerate(
        (
            ('--seed', '-3'),
            ('--cfg-options', 'train_dataloader.batch_size=0'),
            ('--cfg-options', 'optim_wrapper.optimizer.lr=-1'),
        )
    ):
        line = line_of('train', 'single.py', '--work-dir', f'w{number}', *option)
        assert line.endswith(': correct the config') and 'Traceback' not in line


@pytest.mark.parametrize(
    'error, line',
    [
        (PermissionError(errno.EACCES, 'Permission denied', 'a/b'), 'a/b: permission denied; cho'),
        (IsADirectoryError(errno.EISDIR, 'Is a directory', 'a'), 'a: is a folder; give a file'),
        (FileNotFoundError(errno.ENOENT, 'No such file', b'a'), 'a: not found; check the path'),
        (OSError(errno.ENOSPC, 'No space left', 'a'), 'a: no space is left; free some, then call'),
        (
            OSError("Original Traceback (most recent call\nOSError: [Errno 28] Full: 'a.png'"),
            'a.png: no space is left',
        ),
    ],
)  # fmt: skip
def test_errors_of_the_system_name_file_and_fix(error, line):
    assert of_system(error).startswith(line)


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='a device of Linux')
def test_a_full_disk_is_named_where_the_system_does_not(tmp_path):
    """A write does not know its file's name; the file does."""
    with pytest.raises(SystemExit, match='error: /dev/full: no space is left'), reporting_errors():
        with open('/dev/full', 'w') as file:
            file.write('x')


@pytest.mark.parametrize(
    'error, line',
    [
        (torch.OutOfMemoryError('CUDA out of memory. Tried'), 'the GPU is out of memory; make'),
        (RuntimeError('CUDA error: out of memory'), 'the GPU is out of memory; make'),
        (RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when'), 'the GPU is out of memory'),
        (
            RuntimeError('put_ does not have a deterministic implementation, but'),
            'randomness.deterministic=True asks for',
        ),
        (RuntimeError('[enforce] DefaultCPUAllocator: not enough'), 'the memory is full; make'),
        (MemoryError(), 'the memory is full'),
        (RuntimeError('DataLoader worker (pid 3) is killed by signal: Bus error.'), 'the shared'),
        (RuntimeError('received 0 items of ancdata'), 'too many open files; raise'),
        (RuntimeError('No CUDA GPUs are available'), 'this device cannot be used here'),
        (RuntimeError('mat1 and mat2 shapes cannot be multiplied'), None),
        (KeyError('x'), None),
    ],
)  # fmt: skip
def test_errors_of_libraries(error, line):
    assert (of_libraries(error) or '').startswith(line or '')
    assert bool(of_libraries(error)) == bool(line)


def test_an_error_of_ours_that_quotes_a_library_keeps_its_message():
    message = 'a.png cannot be predicted on here (CUDA out of memory); choose another --device'
    assert explain(CASTError(message)) == message


def test_a_wrong_argument_elsewhere_keeps_its_traceback():
    """Only a class that the registry calls with a config's arguments is the config's mistake."""

    @MODELS.register_module(name='FailsInside', force=True)
    class FailsInside:
        def __init__(self) -> None:
            dict.fromkeys(colour=1)

    with pytest.raises(TypeError), reporting_errors():
        MODELS.build(dict(type='FailsInside'))
