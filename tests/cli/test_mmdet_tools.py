"""The tools of MMDetection that docs/mmdet_tools.md names, each run as a command line on the toy
with the step config as it is.
"""

import ast
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmcast.cli.mmdet import TESTED, main
from mmcast.toy.cityscapes import prepare_toy_cityscapes

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/toy/toy_student_refine.py'
WEIGHTS = ROOT / 'configs/toy/weights/toy_student.pth'
VAL = 'data/toy_cityscapes/annotations/instances_val.json'
LABELED = 'data/toy_cityscapes/annotations/labeled_10percent_seed0.json'
ODD_BATCH = ('--cfg-options', 'train_dataloader.batch_size=5', 'work_dir=never_made')
IN_PROCESS = ('test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False')


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Where the config finds its data: 3 labeled and 4 validation images."""
    folder = tmp_path_factory.mktemp('mmdet_tools')
    prepare_toy_cityscapes(folder / 'data/toy_cityscapes', num_train=30, num_val=4, percent=10)
    return folder


def command(folder: Path, script: str, *args) -> subprocess.CompletedProcess:
    """Runs a script of ``tools`` where there is neither a display nor a GPU."""
    hidden = ('DISPLAY', 'WAYLAND_DISPLAY', 'MPLBACKEND', 'PYTHONPATH')
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment.update(PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES='')
    return subprocess.run(
        [sys.executable, str(ROOT / 'tools' / script), *map(str, args)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def tool(folder: Path, *args) -> str:
    """The output of one of mmdet's tools, which must succeed."""
    done = command(folder, 'mmdet.py', *args)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def images_of(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob('*.png')}


def names_of(labels: Path) -> set[str]:
    return {Path(image['file_name']).name for image in json.loads(labels.read_text())['images']}


@pytest.fixture(scope='module')
def tested(folder) -> str:
    """Output of ``tools/test.py``, which leaves predictions.pkl and results.segm.json."""
    options = ('--cfg-options', *IN_PROCESS, 'test_evaluator.outfile_prefix=results')
    done = command(folder, 'test.py', CONFIG, WEIGHTS, '--out', 'predictions.pkl', *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def log(folder) -> Path:
    """The log of two iterations of mmdet's ``train``, started with the shipped weights."""
    settings = {
        'load_from': WEIGHTS,
        'train_cfg.max_iters': 2,
        'train_dataloader.batch_size': 2,
        'default_hooks.logger.interval': 1,
        'default_hooks.checkpoint.interval': 2,
        'val_cfg': None,
        'val_dataloader': None,
        'val_evaluator': None,
    }
    options = [f'{key}={value}' for key, value in settings.items()]
    tool(folder, 'train', CONFIG, '--work-dir', 'trained', '--cfg-options', *options)
    (path,) = (folder / 'trained').glob('*/vis_data/scalars.json')
    return path


def predictions_of(path: Path) -> list[dict]:
    return pickle.loads(path.read_bytes())


# ---- the entry


def test_without_a_name_the_tools_are_listed_with_a_line_each(capsys):
    main([])
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[0]: line.split(maxsplit=1)[1:] for line in lines if line[:2] == '  '}
    assert set(TESTED) | {'print_config', 'mot:browse_dataset'} <= set(listed)
    assert all(listed.values())


@pytest.mark.parametrize(
    'args, message',
    [
        (['get_flop', 'x.py'], r'no tool get_flop; the nearest is get_flops'),
        (['train', 'cast_toy.py'], r'cast_toy\.py is a pipeline config.*mmcast train'),
        (['train', 'toy/toy_student_transfer.py', *ODD_BATCH], 'images of one source alone'),
        (['eval_metric', 'none.py', 'none.pkl'], r'none\.py'),
        (['test_robustness', 'toy_student_refine.py', 'x.pth'], r'--out FILE\.pkl'),
    ],
)
def test_what_cannot_work_is_one_line(args, message):
    with pytest.raises(SystemExit, match=message) as stop:
        main(args)
    assert str(stop.value).startswith('error: ') and '\n' not in str(stop.value)


def test_a_shipped_config_is_found_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(['print_config', 'toy/toy_student_refine.py'])
    assert 'CASTDetector' in capsys.readouterr().out


# ---- the tools


def test_get_flops(folder):
    output = tool(folder, 'get_flops', CONFIG, '--num-images', 1)
    assert re.search(r'Flops: 0\.5\d+G\nParams: 1\.178M', output)


def test_benchmark_measures_the_reading_of_data(folder):
    output = tool(folder, 'benchmark', CONFIG, '--max-iter', 4, '--num-warmup', 1)
    assert re.search(r'Overall fps: [1-9]\d*\.\d batch/s', output)


def test_benchmark_of_inference_without_cuda_names_what_to_use(folder):
    done = command(
        folder, 'mmdet.py', 'benchmark', CONFIG, '--task=inference', '--checkpoint', WEIGHTS
    )
    assert done.returncode == 1
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert 'CUDA' in done.stderr and 'mmcast benchmark' in done.stderr


def test_browse_dataset_writes_the_training_images_without_a_display(folder):
    tool(folder, 'browse_dataset', CONFIG, '--output-dir', 'browsed')
    assert images_of(folder / 'browsed') == names_of(folder / LABELED)
    done = command(folder, 'mmdet.py', 'browse_dataset', CONFIG)
    assert done.returncode == 1 and 'give --output-dir' in done.stderr


def test_train_writes_a_checkpoint_and_analyze_logs_reads_its_log(folder, log):
    assert (folder / 'trained/iter_2.pth').is_file()
    tool(folder, 'analyze_logs', 'plot_curve', log, '--keys', 'loss', '--out', 'loss.png')
    assert (folder / 'loss.png').stat().st_size > 1000
    times = [json.loads(line)['time'] for line in log.read_text().splitlines()]
    output = tool(folder, 'analyze_logs', 'cal_train_time', log, '--include-outliers')
    assert f'average iter time: {np.mean(times):.4f} s/iter' in output


def test_test_finds_the_same_predictions_and_draws_them(folder, tested):
    outputs = ('--out', 'mmdets.pkl', '--work-dir', 'drawn', '--show-dir', 'images')
    tool(folder, 'test', CONFIG, WEIGHTS, *outputs, '--cfg-options', *IN_PROCESS)
    assert images_of(folder / 'drawn') >= names_of(folder / VAL)
    ours, theirs = (predictions_of(folder / name) for name in ('predictions.pkl', 'mmdets.pkl'))
    assert len(ours) == len(theirs) == 4
    for our, their in zip(ours, theirs):
        assert our['img_id'] == their['img_id']
        our, their = our['pred_instances'], their['pred_instances']
        assert our['masks'] == their['masks'] and len(our['masks'])
        for key in ('bboxes', 'scores', 'labels'):
            assert np.array_equal(our[key], their[key])


def test_test_leaves_the_config_of_the_training_as_it_was(folder, log):
    own = folder / 'trained' / Path(CONFIG).name
    before = own.read_text()
    options = (*IN_PROCESS, 'model.detector.test_cfg.max_per_image=7')
    tool(folder, 'test', own, 'trained/iter_2.pth', '--cfg-options', *options)
    assert own.read_text() == before
    (of_test,) = (path for path in (folder / 'trained').glob(f'*/{own.name}'))
    assert 'max_per_image=7' in of_test.read_text()


def test_eval_metric_finds_the_ap_of_the_test(folder, tested):
    output = tool(folder, 'eval_metric', CONFIG, 'predictions.pkl')
    metrics = ast.literal_eval(re.search(r"^\{'coco/.*\}$", output, re.MULTILINE)[0])
    printed = re.search(r'^coco/segm_mAP: ([\d.]+)$', tested, re.MULTILINE)[1]
    assert metrics['coco/segm_mAP'] == float(printed) > 0


def test_confusion_matrix_is_drawn_without_a_display(folder, tested):
    tool(folder, 'confusion_matrix', CONFIG, 'predictions.pkl', 'confusion')
    assert (folder / 'confusion/confusion_matrix.png').stat().st_size > 1000


def test_analyze_results_draws_the_best_and_the_worst_images(folder, tested):
    tool(folder, 'analyze_results', CONFIG, 'predictions.pkl', 'analysed', '--topk', 2)
    drawn = {
        kind: {
            re.sub(r'_[\d.]+\.png$', '.png', name) for name in images_of(folder / 'analysed' / kind)
        }
        for kind in ('good', 'bad')
    }
    assert len(drawn['good']) == len(drawn['bad']) == 2
    assert drawn['good'] | drawn['bad'] == names_of(folder / VAL)


def test_coco_error_analysis_draws_every_class(folder, tested):
    args = ('results.segm.json', 'errors', '--ann', VAL, '--types', 'segm')
    tool(folder, 'coco_error_analysis', *args)
    classes = [each['name'] for each in json.loads((folder / VAL).read_text())['categories']]
    names = {f'segm-{name}-allarea.png' for name in [*classes, 'allclass']}
    assert names <= images_of(folder / 'errors/segm')


def test_test_robustness_measures_corrupted_images(folder, tested):
    output = tool(
        folder,
        'test_robustness',
        *(
            CONFIG,
            WEIGHTS,
            '--out',
            'robust.pkl',
            '--corruptions',
            'contrast',
            '--severities',
            0,
            5,
        ),
        *('--cfg-options', *IN_PROCESS),
    )
    assert 'Mean Performance under Corruption [mPC] (bbox)' in output
    assert 'not run counts as 0' in output
    clean, corrupted = (
        predictions_of(folder / 'robust_results.pkl')['contrast'][i] for i in (0, 5)
    )
    printed = re.search(r'^coco/segm_mAP: ([\d.]+)$', tested, re.MULTILINE)[1]
    assert clean['coco/segm_mAP'] == float(printed) > corrupted['coco/segm_mAP']
    assert 'coco/bbox_mAP' in clean
