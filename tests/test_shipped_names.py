"""``mmcast::`` before a shipped config's name: as a base, in a pipeline, through mmengine.hub."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config, get_model

from mmcast.configs import shipped_configs
from mmcast.errors import CASTError
from mmcast.models.weights.reading import read_state_dict
from mmcast.pipeline.plan import Plan

NAMES = sorted(
    path.relative_to(shipped_configs()).as_posix()
    for path in shipped_configs().rglob('*.py')
    if '_base_' not in path.parts
)


def inherit(folder: Path, name: str, more: str = '') -> Path:
    path = folder / 'own.py'
    path.write_text(f'_base_ = {name!r}\n{more}')
    return path


def without_scope(value):
    if isinstance(value, dict):
        return {key: without_scope(item) for key, item in value.items() if key != '_scope_'}
    return [without_scope(item) for item in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize('name', NAMES)
def test_every_shipped_config_is_a_base_by_its_name(tmp_path, name):
    own = Config.fromfile(inherit(tmp_path, f'mmcast::{name}'))
    assert without_scope(own.to_dict()) == without_scope(
        Config.fromfile(shipped_configs() / name).to_dict()
    )


def test_types_of_a_part_are_ours_under_another_default_scope(tmp_path):
    more = "default_scope = 'mmdet'"
    cfg = Config.fromfile(inherit(tmp_path, 'mmcast::_base_/models/toy_student.py', more))
    assert cfg.model._scope_ == 'mmcast'


def test_a_pipeline_of_ones_own_has_the_steps_of_the_shipped_one(tmp_path):
    own = Plan(inherit(tmp_path, 'mmcast::cast_toy.py', "variables = dict(data_root='elsewhere')"))
    shipped = Plan('cast_toy.py')
    assert own.definitions == shipped.definitions
    assert own.config.variables.data_root == 'elsewhere' != shipped.config.variables.data_root
    for name in own.definitions:
        assert own.iterations(name) == shipped.iterations(name)


def test_a_name_that_is_not_shipped_is_one_line(tmp_path):
    with pytest.raises(CASTError, match=r'mmcast::cast_tov.py is not among the configs of mmcast'):
        Config.fromfile(inherit(tmp_path, 'mmcast::cast_tov.py'))


def test_other_packages_names_are_mmengines(tmp_path):
    own = Config.fromfile(inherit(tmp_path, 'mmdet::_base_/default_runtime.py'))
    assert own.default_scope == 'mmdet'
    with pytest.raises(AssertionError, match='does not support to load nobody'):
        Config.fromfile(inherit(tmp_path, 'nobody::a/b.py'))


@pytest.mark.parametrize('name', ['toy/toy_teacher_adapt_labeled.py', 'toy/toy_student_refine.py'])
def test_the_hub_builds_models(name):
    assert get_config(f'mmcast::{name}').filename == str(shipped_configs() / name)
    assert type(get_model(f'mmcast::{name}')).__name__ == 'CASTDetector'


def test_the_hub_loads_the_weights_that_a_metafile_names():
    model = get_model('mmcast::toy/toy_student_refine.py', pretrained=True)
    stored = read_state_dict(shipped_configs() / 'toy/weights/toy_student.pth')
    assert stored
    for name, value in stored.items():
        assert torch.equal(model.detector.state_dict()[name], value.float()), name


def test_weights_that_no_metafile_names_are_one_line():
    with pytest.raises(CASTError, match='has no pretrained weights'):
        get_model('mmcast::toy/toy_student_transfer.py', pretrained=True)


def test_names_work_where_mmengine_was_imported_first(tmp_path):
    code = (
        'from mmengine.hub import get_config; from mmengine.config import Config; import mmcast; '
        f'print(Config.fromfile({str(inherit(tmp_path, "mmcast::cast_toy.py"))!r}).filename, '
        'get_config("mmcast::cast_toy.py").filename)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.split() == [
        str(tmp_path / 'own.py'),
        str(shipped_configs() / 'cast_toy.py'),
    ], done.stderr
