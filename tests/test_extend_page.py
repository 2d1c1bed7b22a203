"""docs/extend.md: its three files, in a folder of their own, train as the page says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmcast.configs import load_config
from mmcast.pipeline.plan import Plan

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / 'docs' / 'extend.md'


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """The files of the page, as a reader copies them."""
    folder = tmp_path_factory.mktemp('my_project')
    files = re.findall(
        r'^`(\w+\.py)`:.*?^```python\n(.*?)^```$', PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    for name, code in files:
        (folder / name).write_text(code)
    assert sorted(name for name, _ in files) == [
        'my_pipeline.py',
        'my_student_transfer.py',
        'tversky_loss.py',
    ]
    return folder


def page_options() -> list[str]:
    """Those of the page's trial run."""
    command = re.search(
        r'mmcast train my_pipeline.py --work-dir .*?\n\n', PAGE.read_text(), re.DOTALL
    )
    return command.group().replace('\\\n', ' ').split()[1:]


@pytest.fixture(scope='module')
def trial(folder) -> str:
    """What the page's trial run prints; it runs in the folder of the files."""
    done = subprocess.run(
        [sys.executable, '-m', 'mmcast', *page_options(), 'report.images=1'],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_the_steps_are_those_of_the_page(folder):
    plan = Plan(folder / 'my_pipeline.py')
    shipped = Plan('cast_toy.py')
    assert list(plan.definitions) == [
        *(name for name in shipped.definitions if name != 'refine'),
        'no_pixel_loss',
    ]
    assert plan.definitions['pseudo_label_2'] == dict(
        shipped.definitions['pseudo_label_2'], flip=True
    )
    assert [row['row'] for row in plan.rows][-2:] == [
        'student, transferred (2)',
        'student, without the pixel loss',
    ]
    assert 'student, refined' not in {column['title'] for column in plan.report_columns()}


def test_the_step_config_alone_builds_the_new_student(folder):
    config = load_config(folder / 'my_student_transfer.py')
    from mmcast.registry import MODELS

    detector = MODELS.build(config.model).detector
    assert detector.backbone.name == 'resnet18'
    assert type(detector.panoptic_head.loss_dice).__name__ == 'TverskyLoss'
    assert detector.panoptic_head.loss_dice.missed == 0.8


def test_the_page_trains(folder, trial):
    work_dir = folder / 'work_dirs/trial'
    steps = json.loads((work_dir / 'pipeline.json').read_text())['steps']
    assert {record['status'] for record in steps.values()} == {'finished'}
    assert 'refine' not in steps
    rows = json.loads((work_dir / 'summary.json').read_text())
    sizes = {row['step']: row['parameters'] for row in rows}
    assert sizes['transfer'] == sizes['no_pixel_loss'] > 11  # millions: a ResNet-18
    assert 'student, without the pixel loss' in trial
    labels = json.loads(
        (
            work_dir / steps['pseudo_label_2']['outputs']['annotations'].removeprefix('{work_dir}/')
        ).read_text()
    )
    assert labels['info'] and 'flip' in json.dumps(labels['info'])


def test_the_two_students_had_the_losses_of_their_configs(folder, trial):
    work_dir = folder / 'work_dirs/trial'
    for name, pixel in (('transfer', True), ('no_pixel_loss', False)):
        (step,) = work_dir.glob(f'*_{name}')
        dumped = Config.fromfile(next(step.glob('*.py')), import_custom_modules=False)
        head = dumped.model.detector.panoptic_head
        assert head.loss_dice.type == 'TverskyLoss' and 'use_sigmoid' not in head.loss_dice
        assert dumped.model.detector.backbone.type == 'TimmEncoder'
        assert 'patch_size' not in dumped.model.detector.backbone
        assert bool(dumped.model.pixel_contrast) == pixel


def test_the_exported_student_says_where_its_module_has_to_be(folder, trial, tmp_path):
    code = """
import sys
import mmcast
try:
    mmcast.load_student(sys.argv[1])
except mmcast.CASTError as error:
    print(error)
sys.path.append(sys.argv[2])
print(type(mmcast.load_student(sys.argv[1])).__name__)
"""
    done = subprocess.run(
        [sys.executable, '-c', code, folder / 'work_dirs/trial/student', folder],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'tversky_loss'; put the module next to" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == 'TorchStudent', done.stderr
