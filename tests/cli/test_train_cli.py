import os
import pickle
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_run import SINGLE_RUN

from mmcast.locks import hold_work_dir

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / 'tests/helpers'))
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    Path('toy_single.py').write_text(SINGLE_RUN)
    return 'toy_single.py'


def call(tool: str, *args: str, monkeypatch) -> str:
    """Runs a tool in this process; returns its error line, '' if it had none."""
    monkeypatch.setattr(sys, 'argv', [tool, *args])
    try:
        runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
    except SystemExit as stop:
        return str(stop.code)
    return ''


def run_process(tool: str, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / 'tools' / tool), *args]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


def test_help_does_not_offer_gpus():
    """Mim looks for --gpus in the help and, where it is, adds options that this tool has not."""
    for tool in ('train.py', 'test.py'):
        done = run_process(tool, '-h')
        assert '--cfg-options' in done.stdout and '--gpus' not in done.stdout


def test_missing_config_is_one_line_and_status_1(tmp_path):
    done = run_process('train.py', 'none.py', cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == 'error: config none.py not found; give the path of an existing config\n'
    assert list(tmp_path.iterdir()) == []


def test_two_runs_at_once_on_one_work_directory_are_refused(config, monkeypatch):
    """Training and testing alike, also a test where training writes by default."""
    assert call('train.py', config, monkeypatch=monkeypatch) == ''
    checkpoint = 'work_dirs/toy_single/iter_4.pth'
    copy = Path('work_dirs/toy_single/toy_single.py').read_text()
    with hold_work_dir(Path('work_dirs/toy_single')):
        for tool, *args in (
            ('train.py', config, '--resume', '--cfg-options', 'train_cfg.max_iters=6'),
            ('test.py', config, checkpoint, '--cfg-options', 'log_level=INFO'),
        ):
            error = call(tool, *args, monkeypatch=monkeypatch)
            assert error.startswith('error: work_dirs/toy_single is in use by another run (process')
            assert error.endswith('wait until it ends, or choose another --work-dir')
        elsewhere = ('test.py', config, checkpoint, '--work-dir', 'elsewhere')
        assert call(*elsewhere, monkeypatch=monkeypatch) == ''
    assert not Path('work_dirs/toy_single/iter_6.pth').exists()
    assert Path('work_dirs/toy_single/toy_single.py').read_text() == copy
    assert call('test.py', config, checkpoint, monkeypatch=monkeypatch) == ''


@pytest.mark.parametrize('work_dir', ['pipeline', 'pipeline/02_teach'])
def test_a_single_run_does_not_write_into_a_pipeline_or_a_step_of_it(config, work_dir, monkeypatch):
    Path(work_dir).mkdir(parents=True)
    Path('pipeline/pipeline.json').touch()
    error = call('train.py', config, '--work-dir', work_dir, '--resume', monkeypatch=monkeypatch)
    assert error == f'error: {work_dir} belongs to a pipeline; choose another --work-dir'
    assert list(Path(work_dir).glob('*.py')) == []


def test_checkpoints_without_a_text_file_are_an_earlier_run_too(config, monkeypatch):
    """As left by a kill between the first checkpoint and MMEngine's ``last_checkpoint``."""
    assert call('train.py', config, monkeypatch=monkeypatch) == ''
    Path('work_dirs/toy_single/last_checkpoint').unlink()
    times = [path.stat().st_mtime_ns for path in Path('work_dirs/toy_single').glob('*.pth')]
    again = call('train.py', config, monkeypatch=monkeypatch)
    assert again.startswith('error: work_dirs/toy_single holds checkpoints of an earlier run')
    assert times == [path.stat().st_mtime_ns for path in Path('work_dirs/toy_single').glob('*.pth')]


def test_train_resume_and_test(config, monkeypatch, capsys):
    assert call('train.py', config, '--seed', '5', monkeypatch=monkeypatch) == ''
    checkpoint = Path('work_dirs/toy_single/iter_4.pth')
    assert torch.load(checkpoint, weights_only=False)['meta']['seed'] == 5
    again = call('train.py', config, monkeypatch=monkeypatch)
    assert again.startswith(
        'error: work_dirs/toy_single holds checkpoints of an earlier run; --resume'
    )
    longer = ('--resume', '--cfg-options', 'train_cfg.max_iters=6')
    assert call('train.py', config, *longer, monkeypatch=monkeypatch) == ''
    assert Path('work_dirs/toy_single/iter_6.pth').exists()
    longer = ('--cfg-options', 'resume=True', 'train_cfg.max_iters=8')  # MMEngine's way
    assert call('train.py', config, *longer, monkeypatch=monkeypatch) == ''
    assert Path('work_dirs/toy_single/iter_8.pth').exists()

    assert (
        call('test.py', config, str(checkpoint), '--out', 'out.json', monkeypatch=monkeypatch) == ''
    )
    assert 'coco/segm_mAP: 0.2500' in capsys.readouterr().out
    content = Path('out.json').read_text()
    again = call('test.py', config, str(checkpoint), '--out', 'out.json', monkeypatch=monkeypatch)
    assert again.startswith('error: out.json exists') and Path('out.json').read_text() == content


def test_out_is_written_by_its_ending(config, monkeypatch):
    assert call('train.py', config, monkeypatch=monkeypatch) == ''
    checkpoint = 'work_dirs/toy_single/iter_4.pth'
    error = call('test.py', config, checkpoint, '--out', 'out.txt', monkeypatch=monkeypatch)
    assert error.startswith('error: --out out.txt: ') and '.json' in error and '.pkl' in error
    for attempt in ('', 'error: out.pkl exists'):
        error = call('test.py', config, checkpoint, '--out', 'out.pkl', monkeypatch=monkeypatch)
        assert error.startswith(attempt) and bool(error) == bool(attempt)
        assert len(pickle.loads(Path('out.pkl').read_bytes())) == 8  # a prediction for each image


def test_a_launcher_that_did_not_start_the_process_is_one_line(config, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    error = call('train.py', config, '--launcher', 'pytorch', monkeypatch=monkeypatch)
    assert error.startswith('error: --launcher pytorch is for processes that torchrun starts')


def test_processes_are_started_once(config, monkeypatch):
    options = ('--launcher', 'pytorch', '--processes', '2')
    error = call('train.py', config, *options, monkeypatch=monkeypatch)
    assert error.startswith('error: --processes starts processes, --launcher says what has')


def test_an_error_of_two_processes_is_one_line_of_each(config):
    """And the exit status is that of an error."""
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), config, '--processes', '2']
    options = ['--cfg-options', 'optim_wrapper.optimizer.type=Nonesuch']
    modules = os.pathsep.join(map(str, (ROOT, ROOT / 'tests' / 'helpers')))
    done = subprocess.run(
        [*command, *options],
        env=dict(os.environ, PYTHONPATH=modules),
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 1 and 0 < len(lines) <= 2 and 'Nonesuch' in lines[0]
    assert 'Traceback' not in done.stderr


KILLED = """
import os, signal
from mmcast.training.distributed import run_processes

def work():
    if os.environ['RANK'] == '1':
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == '__main__':
    run_processes(2, work)
"""


def test_a_process_that_the_system_kills_is_said_to_be(tmp_path):
    """As one that needs more memory than there is; it can say nothing itself."""
    (tmp_path / 'killed.py').write_text(KILLED)
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, tmp_path / 'killed.py'], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert 'error: process 1 of 2 was killed by signal 9' in done.stderr


def test_resume_of_another_config_is_refused(config, monkeypatch):
    assert call('train.py', config, '--work-dir', 'w', monkeypatch=monkeypatch) == ''
    Path(config).rename('other.py')
    error = call('train.py', 'other.py', '--work-dir', 'w', '--resume', monkeypatch=monkeypatch)
    assert (
        error == 'error: w holds a run of another config than other.py; choose another --work-dir'
    )


@pytest.mark.parametrize(
    'content, reason',
    [
        (
            dict(state_dict={'layer.weight': torch.zeros(1, 1)}),
            r'1 keys missing, such as layer.bias',
        ),
        (dict(state_dict={'layer.weight': torch.zeros(2, 1)}), r'layer.weight is \(2, 1\)'),
        ('no checkpoint', 'state dict'),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(config, monkeypatch, content, reason):
    torch.save(content, 'other.pth')
    for tool, *args in (
        ('test.py', 'other.pth'),
        ('train.py', '--cfg-options', 'load_from=other.pth'),
    ):
        error = call(tool, config, *args, monkeypatch=monkeypatch)
        assert error.startswith('error: other.pth') and '\n' not in error
        assert re.search(reason, error)
    assert not list(Path().glob('work_dirs/*/*.pth'))


def test_config_with_a_mistake_is_named(config, monkeypatch):
    Path(config).write_text('model = dict(type=')
    error = call('train.py', config, monkeypatch=monkeypatch)
    assert error.startswith('error: config toy_single.py cannot be read') and '\n' not in error


def test_unreadable_image_in_a_worker_is_named(config, monkeypatch):
    pipeline = "num_workers=1, dataset=dict(type='ToyDataset', pipeline=[dict(type='LoadImage')])"
    Path(config).write_text(
        SINGLE_RUN.replace("num_workers=0, dataset=dict(type='ToyDataset')", pipeline, 1)
    )
    for index in range(8):
        Path(f'image_{index}.png').write_bytes(b'no image')
    error = call('train.py', config, monkeypatch=monkeypatch)
    assert (
        error.startswith('error: image image_') and 'cannot be read' in error and '\n' not in error
    )
