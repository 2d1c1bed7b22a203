"""A run on a full disk: one line, whole checkpoints, and the ones before stay."""

import pytest
from full_disk import files_of_at_most
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from toy_run import config

from mmcast.errors import CASTError
from mmcast.training.runner import train_run


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """Two iterations, with a checkpoint of 800 kB after each."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    checkpoint = dict(checkpoint=dict(interval=1))
    return config(tmp_path / 'run', 2, model=dict(width=100_000), default_hooks=checkpoint)


def test_a_checkpoint_that_does_not_fit_is_named_and_leaves_nothing(cfg, tmp_path):
    with files_of_at_most(400_000), pytest.raises(CASTError) as error:
        train_run(cfg)
    assert str(error.value).startswith(f'cannot write {tmp_path}/run/iter_1.pth (File too large)')
    assert not list((tmp_path / 'run').glob('*.pth*'))


@HOOKS.register_module()
class TalkativeHook(Hook):
    def after_train_iter(self, runner, *args, **kwargs):
        runner.logger.error('x' * 500_000)


def test_a_log_line_that_does_not_fit_ends_the_run(cfg, tmp_path, capfd):
    cfg.custom_hooks = [dict(type='TalkativeHook')]
    with files_of_at_most(400_000), pytest.raises(CASTError) as error:
        train_run(cfg)
    assert str(error.value).startswith(f'cannot write {tmp_path}/run (File too large)')
    assert 'Traceback' not in capfd.readouterr().err


def test_no_room_for_the_first_file_names_the_folder(cfg, tmp_path):
    with files_of_at_most(10), pytest.raises(CASTError) as error:
        train_run(cfg)
    assert str(error.value).startswith(f'cannot write {tmp_path}/run (File too large)')
