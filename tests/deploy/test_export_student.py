"""The student alone: what is in the files, who can run them, and what is refused."""

import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from full_disk import files_of_at_most
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from safetensors.torch import load_file

from mmcast import deploy
from mmcast.cli.main import main
from mmcast.data.loading import value_range_of
from mmcast.deploy import onnx_export
from mmcast.deploy.export import (
    Source,
    evaluated_part,
    export_student,
    find_source,
    student_config,
)
from mmcast.deploy.onnx_export import onnx_metadata
from mmcast.errors import CASTError
from mmcast.models.weights.reading import read_state_dict
from mmcast.registry import DATASETS, MODELS
from mmcast.training.runner import test_run as run_test

ROOT = Path(__file__).parents[2]
STOCK = """
import sys
import mmcast  # mmcv without compiled operators needs it before mmdet
import numpy as np
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.runner import Runner
folder, out, *images = sys.argv[1:]
inferencer = DetInferencer(
    f'{folder}/student.py', f'{folder}/student.pth', device='cpu', show_progress=False
)
found = [each.pred_instances for each in inferencer(images, return_datasamples=True)['predictions']]
config = Config.fromfile(f'{folder}/student.py')
config.load_from, config.work_dir = f'{folder}/student.pth', out + '.work'
metrics = Runner.from_cfg(config).test()
np.savez(out, ap=metrics['coco/segm_mAP'], classes=inferencer.model.dataset_meta['classes'],
         **{f'{key}{i}': each[key].numpy() for i, each in enumerate(found)
            for key in ('masks', 'scores', 'bboxes')})
"""


def call(monkeypatch, *args) -> str:
    """Runs tools/export_student.py in this process; returns its error line, '' if it had none."""
    monkeypatch.setattr(sys, 'argv', ['export_student.py', *map(str, args)])
    try:
        runpy.run_path(str(ROOT / 'tools/export_student.py'), run_name='__main__')
    except SystemExit as stop:
        return str(stop.code)
    return ''


def test_only_the_student_is_in_the_files(trained, exported):
    content = torch.load(exported / 'student.pth', weights_only=True)
    state, parts = content['state_dict'], {key.split('.')[0] for key in content['state_dict']}
    assert parts == {'backbone', 'panoptic_head'} and set(content) == {'state_dict', 'meta'}
    original = torch.load(trained.checkpoint, weights_only=True)['state_dict']
    assert all(torch.equal(value, original[f'detector.{key}']) for key, value in state.items())
    assert content['meta']['dataset_meta']['classes'][:3] == ['person', 'rider', 'car']
    again = load_file(exported / 'student.safetensors')
    assert again.keys() == state.keys() and all(
        torch.equal(again[key], state[key]) for key in state
    )


def test_what_is_exported_is_the_network_that_the_run_evaluates(trained, tmp_path):
    """An online teacher's average, where `predict_on` says so; its config may be a word."""
    cfg = Config.fromfile(trained.config)
    cfg.model.teacher = 'detector'
    cfg.model.semi_test_cfg = dict(predict_on='teacher')
    cfg.dump(tmp_path / 'online.py')
    source = Source(tmp_path / 'online.py', trained.checkpoint)
    folder = export_student(source, tmp_path / 'exported')
    teacher = {
        key.removeprefix('teacher.'): value
        for key, value in read_state_dict(trained.checkpoint).items()
        if key.startswith('teacher.')
    }
    exported = torch.load(folder / 'student.pth', weights_only=True)['state_dict']
    assert exported.keys() == teacher.keys()
    assert all(torch.equal(exported[key], teacher[key]) for key in teacher)
    network = onnx_export.load_network(student_config(cfg), source, evaluated_part(cfg))
    assert all(torch.equal(value, teacher[key]) for key, value in network.state_dict().items())


def test_stock_mmdet_predicts_bit_by_bit_what_the_pipeline_predicts(
    trained, exported, toy_data, tmp_path
):
    """DetInferencer and a plain Runner in a new process, with nothing but the config's
    custom_imports.
    """
    cfg = Config.fromfile(trained.config)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(torch.load(trained.checkpoint, weights_only=True)['state_dict'])
    images = [dataset.get_data_info(index)['img_path'] for index in range(3)]
    done = subprocess.run(
        [sys.executable, '-c', STOCK, exported, tmp_path / 'out.npz', *images],
        text=True,
        capture_output=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(tmp_path / 'out.npz')
    for index in range(3):
        with torch.no_grad():
            expected = model.test_step(pseudo_collate([dataset[index]]))[0].pred_instances
        for key in ('masks', 'scores', 'bboxes'):
            assert np.array_equal(found[f'{key}{index}'], expected[key].numpy()), (index, key)
        assert len(expected) == 24
    assert list(found['classes']) == list(dataset.metainfo['classes'])

    cfg.work_dir = str(tmp_path / 'test')
    assert found['ap'] == run_test(cfg, str(trained.checkpoint)).metrics['coco/segm_mAP'] > 0


def test_a_config_and_a_checkpoint_are_exported_by_a_process_that_imported_nothing_before(tmp_path):
    config, weights = 'toy/toy_student_refine.py', ROOT / 'configs/toy/weights/toy_student.pth'
    command = [sys.executable, ROOT / 'tools/export_student.py', config, weights, '--out', tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "type='mmcast.DINOv2'" in (tmp_path / 'student.py').read_text()


def test_the_config_stands_alone_and_names_no_weights_to_start_from(exported):
    text = (exported / 'student.py').read_text()
    assert (
        'init_cfg' not in text
        and 'teacher' not in text
        and 'optim' not in text
        and '_base_' not in text
    )
    config = Config.fromfile(exported / 'student.py')
    assert config.custom_imports.imports == ['mmcast'] and config.default_scope == 'mmdet'
    assert config.test_dataloader.dataset.pipeline[0].type == 'LoadImageFromFile'
    assert config.model.backbone.type == 'mmcast.DINOv2'


def test_a_value_range_goes_with_the_student(trained):
    """Into its config, whose loader is then ours: mmcv's would keep the high byte; and back."""
    cfg = Config.fromfile(trained.config)
    cfg.test_dataloader.dataset.pipeline[0].value_range = '0,4095'
    for given in (cfg, student_config(cfg)):
        (loading, *_) = student_config(given).test_dataloader.dataset.pipeline
        assert (loading.type, value_range_of(given)) == ('mmcast.LoadImage', [0, 4095])
    assert onnx_metadata(student_config(cfg), trained, 0.3)['value_range'] == [0, 4095]
    cfg.test_dataloader.dataset.pipeline[0].value_range = None
    (loading, *_) = student_config(cfg).test_dataloader.dataset.pipeline
    assert loading.type == 'LoadImageFromFile' and 'value_range' not in loading


# ---- what is refused


def damaged(trained, folder: Path, kind: str) -> Source:
    state = torch.load(trained.checkpoint, weights_only=True)['state_dict']
    path = folder / f'{kind}.pth'
    if kind == 'truncated':
        path.write_bytes(trained.checkpoint.read_bytes()[:50_000])
    elif kind == 'teacher':
        torch.save(
            dict(
                state_dict={
                    key: value for key, value in state.items() if key.startswith('teacher.')
                }
            ),
            path,
        )
    elif kind == 'wrong':
        torch.save(
            dict(state_dict={'detector.backbone.conv1.weight': torch.zeros(8, 3, 7, 7)}), path
        )
    return replace(trained, checkpoint=path)


@pytest.mark.parametrize(
    'kind, reason',
    [
        ('truncated', 'is cut short or damaged'),
        ('teacher', 'holds no student, only teacher'),
        ('wrong', 'is not a checkpoint of the student in'),
        ('missing', 'not found'),
    ],
)
def test_a_bad_checkpoint_is_one_line_and_leaves_no_file(
    trained, tmp_path, monkeypatch, kind, reason
):
    source = damaged(trained, tmp_path, kind)
    error = call(monkeypatch, source.config, source.checkpoint, '--out', tmp_path / 'out')
    assert (
        error.startswith('error: ')
        and str(source.checkpoint) in error
        and reason in error
        and '\n' not in error
    )
    assert not list((tmp_path / 'out').glob('*'))


def test_existing_files_and_unwritable_folders_are_refused(
    trained, exported, tmp_path, monkeypatch
):
    before = (exported / 'student.pth').read_bytes()
    error = call(monkeypatch, trained.config, trained.checkpoint, '--out', exported)
    assert error.startswith('error: ') and 'student.py exists' in error and '--force' in error
    assert (exported / 'student.pth').read_bytes() == before
    (tmp_path / 'file').touch()
    error = call(
        monkeypatch, trained.config, trained.checkpoint, '--out', tmp_path / 'file/student'
    )
    assert error.startswith(f'error: cannot write to {tmp_path}/file/student') and '\n' not in error


def test_a_disk_that_fills_up_leaves_nothing(trained, tmp_path):
    with (
        files_of_at_most(200_000),
        pytest.raises(CASTError, match=r'cannot write .*out/student\.pth \(File too large\)'),
    ):
        export_student(trained, tmp_path / 'out')
    assert not list((tmp_path / 'out').iterdir())


# ---- which step of a pipeline


def work_dir(folder: Path, *steps: tuple[str, str, str], students: list[str] | None = None) -> Path:
    """A pipeline's folder: (name, kind, encoder) of its finished steps, in the order in which they
    began, and what the plan says of the student; None: an earlier version wrote it.
    """
    records = {}
    for number, (name, kind, encoder) in enumerate(steps):
        place = folder / f'{number}_{name}'
        place.mkdir(parents=True)
        outputs = (
            dict(checkpoint=f'{{work_dir}}/{place.name}/iter_9.pth') if kind == 'train' else {}
        )
        records[name] = dict(
            status='finished',
            folder=place.name,
            fingerprint='',
            outputs=outputs,
            metrics={},
            seconds=1.5,
            iterations=9,
            parameters=None,
            resumed=False,
        )
        settings = {'step.kind': repr(kind), 'model.detector.backbone.type': repr(encoder)}
        (place / 'fingerprint.json').write_text(json.dumps(dict(settings=settings, files={})))
        (place / f'toy_{name}.py').touch()
    (folder / 'pipeline.json').write_text(
        json.dumps(dict(pipeline='cast.py', steps=records, hashes={}, students=students))
    )
    return folder


ADAPTED = [('adapt', 'train', 'ResNet'), ('label', 'pseudo_label', 'ResNet')]
WHOLE = [
    *ADAPTED,
    ('self_train', 'train', 'ResNet'),
    ('transfer', 'train', 'DINOv2'),
    ('refine', 'train', 'DINOv2'),
]


def test_the_last_finished_step_of_the_student_is_taken(exported, tmp_path):
    folder = work_dir(tmp_path / 'all', *WHOLE)
    assert find_source([str(folder)]) == Source(
        folder / '4_refine/toy_refine.py', folder / '4_refine/iter_9.pth', 'refine'
    )
    assert find_source([str(folder)], 'transfer').checkpoint == folder / '3_transfer/iter_9.pth'
    assert find_source([str(work_dir(tmp_path / 'part', *WHOLE[:4]))]).step == 'transfer'
    assert find_source([str(exported)]) == Source(exported / 'student.py', exported / 'student.pth')
    assert (
        find_source([str(work_dir(tmp_path / 'baseline', ('supervised', 'train', 'DINOv2')))]).step
        == 'supervised'
    )


def test_an_exported_folder_has_no_steps(exported):
    with pytest.raises(CASTError, match='an exported student, which has no steps: leave --step'):
        find_source([str(exported)], 'transfer')


def test_a_work_directory_that_was_exported_into_gives_its_pipelines_student(tmp_path):
    """What lies there is of the day when it was exported."""
    folder = work_dir(tmp_path / 'all', *WHOLE)
    for name in ('student.py', 'student.pth'):
        (folder / name).touch()
    assert find_source([str(folder)]).step == 'refine'


def test_the_order_of_the_config_decides_which_step_is_the_last(tmp_path):
    """A step that was run again, or put before others later, begins last."""
    students = ['transfer', 'added', 'refine']
    added = ('added', 'train', 'DINOv2')
    folder = work_dir(tmp_path / 'added', *WHOLE, added, students=students)
    assert find_source([str(folder)]).step == 'refine'
    assert find_source([str(folder)], 'added').step == 'added'
    folder = work_dir(tmp_path / 'part', *WHOLE[:4], added, students=students)
    assert find_source([str(folder)]).step == 'added'
    folder = work_dir(tmp_path / 'earlier', *WHOLE)  # the numbers of its folders tell
    content = json.loads((folder / 'pipeline.json').read_text())
    content['steps']['transfer'] = content['steps'].pop('transfer')
    (folder / 'pipeline.json').write_text(json.dumps(content))
    assert find_source([str(folder)]).step == 'refine'


def test_mmcast_onnx_says_of_which_step_the_student_is(tmp_path, monkeypatch, capsys):
    folder = work_dir(tmp_path, *WHOLE[:4], students=['transfer', 'refine'])
    monkeypatch.setattr(deploy, 'export_onnx', lambda *args: 'bit by bit')
    monkeypatch.setattr(sys, 'argv', ['mmcast', 'onnx', str(folder), '--out', 'student.onnx'])
    main()
    step, _ = capsys.readouterr().out.splitlines()
    assert step == f'student of step transfer, {folder}/3_transfer/iter_9.pth'


@pytest.mark.parametrize(
    'steps',
    [ADAPTED[:1], [('boxes', 'train', 'Swin'), *ADAPTED]],
    ids=['not labeled yet', 'component'],
)
def test_a_teacher_is_no_student(tmp_path, steps):
    folder = work_dir(tmp_path, *steps, students=['transfer', 'refine'])
    with pytest.raises(CASTError, match="are .*adapt, the student's are transfer, refine; finish"):
        find_source([str(folder)])


@pytest.mark.parametrize(
    'steps, step, reason',
    [
        (ADAPTED, None, 'has no finished student: the training steps finished are adapt'),
        (
            WHOLE,
            'label',
            'has no finished training step label; it has adapt, self_train, transfer, refine',
        ),
    ],
)
def test_without_a_finished_student_the_steps_are_named(tmp_path, steps, step, reason):
    with pytest.raises(CASTError, match=reason):
        find_source([str(work_dir(tmp_path, *steps))], step)


@pytest.mark.parametrize('name', ['pipeline.json', '4_refine/fingerprint.json'])
def test_a_damaged_record_of_a_pipeline_is_named(tmp_path, name):
    folder = work_dir(tmp_path, *WHOLE)
    (folder / name).write_text('{"steps"')
    with pytest.raises(CASTError, match=f'{name} is damaged'):
        find_source([str(folder)])


def test_a_folder_that_is_no_pipelines_is_named(tmp_path, monkeypatch):
    error = call(monkeypatch, tmp_path, '--out', tmp_path / 'out')
    assert (
        error.startswith(f'error: {tmp_path} is not a work directory of a pipeline')
        and '\n' not in error
    )
