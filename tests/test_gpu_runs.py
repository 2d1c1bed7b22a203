"""Runs on a GPU as people start them: training with resume, the toy pipeline, labels, students."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from devices import GPU, REHEARSED
from mmengine.device import get_device, get_max_cuda_memory
from pipelines import ROOT, records, start
from small_models import CONFIGS

from mmcast.checkpoints import load_plain
from mmcast.cli.main import main
from mmcast.deploy.prediction import load_student
from mmcast.images import read_image
from mmcast.pseudo_labels.generate import generate_pseudo_labels
from mmcast.toy.cityscapes import prepare_toy_cityscapes
from mmcast.training.curves import read_curves

pytestmark = pytest.mark.gpu
WEIGHTS = CONFIGS / 'toy/weights'


def mmcast(*arguments, cwd):
    """The command in a process of its own; what it printed."""
    command = [sys.executable, '-m', 'mmcast', *map(str, arguments)]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Toy Cityscapes with eight training and four validation images."""
    root = tmp_path_factory.mktemp('data')
    return dict(prepare_toy_cityscapes(root, num_train=8, num_val=4, percent=50), root=str(root))


def test_the_gpu_is_what_runs_take_by_themselves():
    assert REHEARSED or get_device() == 'cuda'


@pytest.mark.parametrize('precision', ['--amp', 'bfloat16'])
def test_mixed_precision_resumes_where_it_was(precision, data, tmp_path):
    """As command lines; the scaled losses, the optimizer and the schedule come from the file."""
    options = [
        f'train_dataloader.dataset.data_root={data["root"]}',
        f'train_dataloader.dataset.ann_file={data["labeled"]}',
        f'val_dataloader.dataset.data_root={data["root"]}',
        f'val_evaluator.ann_file={data["val"]}',
        f'load_from={WEIGHTS / "toy_student.pth"}',
        'train_dataloader.num_workers=2',
        'train_cfg.val_interval=3',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.interval=2',
    ]
    if precision != '--amp' and not REHEARSED:
        options += ['optim_wrapper.type=AmpOptimWrapper', f'optim_wrapper.dtype={precision}']
    config = CONFIGS / 'baselines/toy_student_supervised.py'
    common = ['train', config, '--work-dir', 'run', *[precision] * (precision == '--amp')]
    for last, resume in ((2, []), (3, ['--resume'])):
        limit = f'train_cfg.max_iters={last}'
        mmcast(*common, *resume, '--cfg-options', *options, limit, cwd=tmp_path)
    curves = read_curves(tmp_path / 'run')
    assert [step for step, _ in curves['loss']] == [1, 2, 3]
    state = load_plain(tmp_path / 'run/iter_3.pth')
    steps = {int(each['step']) for each in state['optimizer']['state'].values()}
    assert REHEARSED or 'loss_scaler' in state['optimizer']
    if precision == 'bfloat16' or REHEARSED:  # the first scales may be too large for float16
        assert steps == {3}
    assert curves['coco/segm_mAP'][-1][0] == 3


def test_the_toy_pipeline_to_predictions(tmp_path, capsys):
    """Labels, training, test, inspection, export, predictions on pictures."""
    options = [
        f'variables.data_root={tmp_path}/data',
        'variables.percent=50',
        'steps.data.kwargs.num_train=12',
        'steps.data.kwargs.num_val=4',
        'step_options.train_dataloader.num_workers=2',
        'report.images=1',
    ]
    run = tmp_path / 'run'
    process = start('cast_toy.py', run, *options)
    output = process.communicate()[0]
    assert process.returncode == 0, output[-3000:]
    steps = records(run)
    assert {record['status'] for record in steps.values()} == {'finished'}
    rows = json.loads((run / 'summary.json').read_text())
    assert rows[0]['mask_ap'] > 0
    if not REHEARSED:
        assert all(steps[name]['peak_memory_mb']['gpu'] > 50 for name in ('transfer', 'refine'))
        assert torch.cuda.get_device_name() in (run / 'student/model_card.md').read_text()

    labels = next(run.glob('*pseudo_label_2/annotations.json'))
    page, folder = str(tmp_path / 'page.html'), str(tmp_path / 'student')
    main(['inspect', str(labels), '--out', page])
    main(['export', str(run), '--out', folder])
    pictures = str(tmp_path / 'data/leftImg8bit/val')
    with pytest.raises(SystemExit, match='0'):
        main(['predict', folder, pictures, '--out', str(tmp_path / 'out'), '--device', GPU])
    config, weights = f'{folder}/student.py', f'{folder}/student.pth'
    metrics = str(tmp_path / 'metrics.json')
    main(['test', config, weights, '--work-dir', str(tmp_path / 'test'), '--out', metrics])
    found = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert len(found['images']) == 4 and found['annotations']
    tested = 100 * json.loads(Path(metrics).read_text())['metrics']['coco/segm_mAP']
    assert tested == pytest.approx(rows[-1]['mask_ap'], abs=0.5)


def test_labels_with_views_are_those_of_the_cpu(data, tmp_path):
    """Six looks at every image, with the teacher's confidence in pixels."""
    stores = {}
    for device in ('cpu', GPU):
        out = tmp_path / f'{device}.json'
        generate_pseudo_labels(
            *(CONFIGS / 'toy/toy_teacher_adapt_labeled.py', WEIGHTS / 'toy_teacher.pth', out),
            ann_file=data['val'],
            img_dir=data['val_images'],
            flip=True,
            scales=(0.75, 1.0, 1.25),
            confidence=True,
            score_floor=0.3,
            device=device,
            num_workers=0,
            progress=False,
        )
        stores[device] = json.loads(out.read_text())['annotations']
    expected, found = stores['cpu'], stores[GPU]
    assert len(expected) > 10 and len(found) == pytest.approx(len(expected), rel=0.1)
    areas = [sum(each['area'] for each in store) for store in (expected, found)]
    scores = [sum(each['score'] for each in store) for store in (expected, found)]
    assert areas[1] == pytest.approx(areas[0], rel=0.05)
    assert scores[1] == pytest.approx(scores[0], rel=0.05)


@pytest.mark.parametrize('windows', [False, True])
def test_a_student_on_the_gpu_predicts_as_on_the_cpu(windows, data, tmp_path):
    config = CONFIGS / 'toy/toy_student_source.py'
    if windows:
        config = tmp_path / 'windows.py'
        test_cfg = dict(windows=dict(size=112, overlap=48))
        config.write_text(
            f'_base_ = "mmcast::toy/toy_student_source.py"\n'
            f'model = dict(detector=dict(test_cfg={test_cfg}))\n'
        )
    image = read_image(next(Path(data['val_images']).rglob('*.png')))
    expected, found = (
        load_student(config, WEIGHTS / 'toy_student.pth', device)(image, 0.3)
        for device in ('cpu', GPU)
    )
    assert len(expected.scores) == len(found.scores) > 3
    same = (expected.masks == found.masks).mean((1, 2))
    assert sorted(expected.labels) == sorted(found.labels) and same.min() > 0.99


@pytest.mark.skipif(REHEARSED, reason='of the GPU alone')
def test_a_line_of_the_log_leaves_the_peak_that_a_pipeline_records():
    torch.cuda.reset_peak_memory_stats()
    torch.zeros(200 * 2**20, dtype=torch.uint8, device='cuda')
    assert get_max_cuda_memory() >= 200
    assert torch.cuda.max_memory_allocated() >= 200 * 2**20


@pytest.mark.skipif(REHEARSED, reason='of the GPU alone')
def test_a_full_gpu_is_one_line(data, tmp_path):
    """In place of a traceback; a student for pictures says which of them it was."""
    torch.cuda.empty_cache()
    with pytest.raises(torch.OutOfMemoryError) as error:
        torch.empty(2**45, dtype=torch.uint8, device='cuda')
    from mmcast.cli.machine_errors import of_libraries
    from mmcast.errors import is_of_machine

    assert is_of_machine(error.value) and 'GPU is out of memory' in of_libraries(error.value)


def test_benchmark_names_the_gpu_and_its_memory(tmp_path):
    config, out = str(CONFIGS / 'toy/toy_student_source.py'), str(tmp_path / 'rows.json')
    options = ('--size', '112', '224', '--runs', '2', '--warmup', '1', '--device', GPU)
    main(['benchmark', config, *options, '--json', out])
    content = json.loads(Path(out).read_text())
    assert 'problem' not in content['rows'][0]
    assert REHEARSED or torch.cuda.get_device_name() in content['machine']
