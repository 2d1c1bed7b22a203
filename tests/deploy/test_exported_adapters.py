"""A checkpoint of LoRA adapters where a model is used: exported, tested, predicting."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from mmcast.adapter_files import BaseWeights, leave_out_base, merge
from mmcast.cli.main import main
from mmcast.deploy.export import Source, export_student
from mmcast.deploy.torch_student import TorchStudent
from mmcast.models.lora import adapted_layers
from mmcast.models.weights.reading import read_state_dict
from mmcast.registry import MODELS
from mmcast.training.runner import test_run as run_test


@pytest.fixture(scope='module')
def adapted(trained, tmp_path_factory):
    """A run's config and checkpoint of the toy's student with adapters, and the weights these make
    of it.
    """
    folder = tmp_path_factory.mktemp('adapted')
    cfg = Config.fromfile(trained.config)
    cfg.model.teacher, cfg.model.lora = None, dict(rank=2)
    cfg.dump(folder / 'lora.py')
    torch.save(read_state_dict(trained.checkpoint), folder / 'start.pth')
    with DefaultScope.overwrite_default_scope('mmcast'):
        model = MODELS.build(ConfigDict(cfg.model))
    model.load_state_dict(torch.load(folder / 'start.pth'), strict=False)
    torch.manual_seed(0)
    for _, layer in adapted_layers(model):
        torch.nn.init.normal_(layer.lora_B['default'].weight, std=0.02)
    content = dict(state_dict=model.state_dict(), meta={})
    leave_out_base(content, BaseWeights.of(folder / 'start.pth'), model.lora.scaling)
    torch.save(content, folder / 'iter_1.pth')
    source = Source(folder / 'lora.py', folder / 'iter_1.pth')
    return source, merge(model.state_dict(), model.lora.scaling), model


def test_the_export_has_them_merged(adapted, tmp_path):
    source, merged, _ = adapted
    folder = export_student(source, tmp_path / 'student')
    exported = torch.load(folder / 'student.pth', weights_only=True)['state_dict']
    assert all(value.equal(merged[f'detector.{name}']) for name, value in exported.items())
    assert not any('lora' in name or 'base_layer' in name for name in exported)
    assert 'lora' not in Config.fromfile(folder / 'student.py').model


def test_predictions_are_those_of_the_model_with_adapters(adapted, photos):
    source, _, model = adapted
    student = TorchStudent(source.config, source.checkpoint, 'cpu')
    assert not list(adapted_layers(student.model))
    found = student(photos[0], 0.0)
    student.model = model.eval()
    expected = student(photos[0], 0.0)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_a_run_is_tested_with_them_merged(adapted, trained, tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    source, merged, _ = adapted
    torch.save(merged, tmp_path / 'merged.pth')
    found = []
    for name, config, checkpoint in (
        ('adapters', source.config, source.checkpoint),
        ('merged', trained.config, tmp_path / 'merged.pth'),
    ):
        cfg = Config.fromfile(config)
        cfg.work_dir, cfg.log_level = str(tmp_path / name), 'ERROR'
        found.append(run_test(cfg, str(checkpoint)))
    adapters, same = found
    assert adapters.metrics == same.metrics
    assert adapters.parameters == same.parameters


def test_a_command_is_told_where_the_base_weights_are(adapted, photos, tmp_path, monkeypatch):
    import cv2

    monkeypatch.delenv('MMCAST_BASE_WEIGHTS', raising=False)
    monkeypatch.setattr(os, 'environ', os.environ.copy())
    source = adapted[0]
    cv2.imwrite(str(tmp_path / 'photo.png'), photos[0][..., ::-1])
    moved = tmp_path / 'weights/start.pth'
    moved.parent.mkdir()
    start = Path(source.checkpoint).with_name('start.pth')
    start.rename(moved)
    arguments = [
        *('predict', str(source.config), str(tmp_path / 'photo.png')),
        *(
            '--checkpoint',
            str(source.checkpoint),
            '--out',
            str(tmp_path / 'out'),
            '--device',
            'cpu',
        ),
    ]
    try:
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert 'start.pth is not there; say where by --base-weights PATH' in str(stop.value)
        with pytest.raises(SystemExit) as stop:
            main([*arguments, '--base-weights', str(moved.parent)])
        assert stop.value.code == 0
        assert (tmp_path / 'out/predictions.json').exists()
    finally:
        moved.rename(start)
