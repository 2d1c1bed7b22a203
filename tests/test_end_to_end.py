"""The shipped pipelines, whole, with a few iterations a step, and what a power cut does to them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared_data import DSB2018

from mmcast.coco.folder import prepare_coco_folder

ROOT = Path(__file__).resolve().parent.parent
SHORT = [
    'step_options.train_cfg.max_iters=3',
    'step_options.train_cfg.val_interval=3',
    'step_options.default_hooks.checkpoint.interval=1',
]
STEPS = [
    'data',
    'zero_shot',
    'adapt_labeled',
    'pseudo_label_1',
    'adapt_self_training',
    'pseudo_label_2',
    'transfer',
    'refine',
]


def start(config: str, work_dir: Path, *options: str, processes: int = 1) -> subprocess.Popen:
    torchrun = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
    command = [
        sys.executable,
        *(torchrun if processes > 1 else []),
        'tools/train.py',
        f'configs/{config}',
        '--launcher',
        'pytorch' if processes > 1 else 'none',
        '--work-dir',
        str(work_dir),
        '--cfg-options',
        *SHORT,
        *options,
    ]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def records(work_dir: Path) -> dict:
    path = work_dir / 'pipeline.json'
    return json.loads(path.read_text())['steps'] if path.exists() else {}


def kill_in_step(process: subprocess.Popen, work_dir: Path, name: str) -> None:
    """SIGKILL as soon as the step has begun."""
    while process.poll() is None:
        if records(work_dir).get(name, {}).get('status') not in (None, 'finished'):
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.05)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    'killed, processes', [((), 2), (STEPS, 1)], ids=['two processes', 'killed in every step']
)
def test_toy_pipeline_ends_in_the_table_and_the_report(tmp_path, killed, processes):
    """All eight steps finish in order, the table has a figure in every row, the report shows
    pictures.
    """
    options = [
        f'variables.data_root={tmp_path}/data',
        'variables.percent=25',
        'steps.data.kwargs.num_train=40',
        'steps.data.kwargs.num_val=4',
        'report.images=2',
    ]
    for name in killed:
        kill_in_step(start('cast_toy.py', tmp_path / 'run', *options), tmp_path / 'run', name)
    process = start('cast_toy.py', tmp_path / 'run', *options, processes=processes)
    output = process.communicate()[0]
    assert process.returncode == 0, output[-3000:]

    assert [
        name for name, record in records(tmp_path / 'run').items() if record['status'] == 'finished'
    ] == STEPS
    rows = json.loads((tmp_path / 'run/summary.json').read_text())
    assert [row['step'] for row in rows] == [
        'zero_shot',
        'adapt_labeled',
        'adapt_self_training',
        'transfer',
        'refine',
    ]
    assert all(0 <= row['mask_ap'] <= 100 for row in rows)
    assert rows[0]['mask_ap'] > 0, 'the shipped foundation teacher finds nothing'
    assert rows[0]['parameters'] > rows[-1]['parameters'], 'the student is to be the smaller one'
    page = (tmp_path / 'run/report.html').read_text()
    assert page.count('data:image') >= 2 and 'http://' not in page.replace('http://www.w3.org', '')
    assert 'student, refined' in output and 'report.html' in output
    inspected = json.loads((tmp_path / 'run/pseudo_labels.json').read_text())['stores']
    assert list(inspected) == ['pseudo_label_1', 'pseudo_label_2']
    assert all(
        store['images'] == 30 and store['quality']['ap'] is not None for store in inspected.values()
    )
    assert 'href="pseudo_labels.html"' in page and (tmp_path / 'run/pseudo_labels.html').exists()
    assert 'Apache-2.0, made by mmcast' in (tmp_path / 'run/student/model_card.md').read_text()


def draw_boxes(folder: Path, names: list[str], portrait: bool = False) -> dict:
    """Images with one bright box each, and COCO labels of two classes for them."""
    folder.mkdir(parents=True)
    height, width = (80, 60) if portrait else (60, 80)
    images, annotations = [], []
    for number, name in enumerate(names):
        pixels = np.full((height, width, 3), 40, np.uint8)
        x, y = 5 + 3 * number, 10
        pixels[y : y + 30, x : x + 20] = 220
        Image.fromarray(pixels).save(folder / name)
        images.append(dict(id=number, file_name=name, height=height, width=width))
        annotations.append(
            dict(
                id=number,
                image_id=number,
                category_id=7 + number % 2,
                area=600,
                iscrowd=0,
                bbox=[x, y, 20, 30],
                segmentation=[[x, y, x + 20, y, x + 20, y + 30, x, y + 30]],
            )
        )
    return dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=7, name='box'), dict(id=8, name='crate')],
    )


def test_own_data_needs_no_edited_config(tmp_path):
    """A JSON, and a folder of images of another orientation than the labeled ones, given on the
    command line.
    """
    labels = draw_boxes(tmp_path / 'data/photos', [f'{i}.png' for i in range(6)])
    (tmp_path / 'data/labels.json').write_text(json.dumps(labels))
    draw_boxes(tmp_path / 'data/new', ['a.png', 'b.jpg', 'c.png'], portrait=True)
    process = start(
        'cast_custom.py',
        tmp_path / 'run',
        f'variables.data_root={tmp_path}/data',
        'variables.labeled=labels.json',
        'variables.unlabeled=new',
        'variables.image_size=64',
    )
    output = process.communicate()[0]
    assert process.returncode == 0, output[-3000:]
    assert (
        '5 labeled, 3 unlabeled and 1 validation images' in output
        and 'classes: box, crate' in output
    )
    assert all(record['status'] == 'finished' for record in records(tmp_path / 'run').values())
    assert len(json.loads((tmp_path / 'run/summary.json').read_text())) == 4
    assert 'crate' in (tmp_path / 'run/report.html').read_text()


@pytest.mark.shared_data
def test_nuclei_pipeline_runs_on_the_real_images(tmp_path):
    """Real microscopy images go through all steps; 17 unlabeled ones and 3 for validation, for the
    time's sake.
    """
    if not DSB2018.is_dir():
        pytest.skip(f'{DSB2018} is absent')
    val = json.loads((DSB2018 / 'annotations/instances_val.json').read_text())
    val['images'] = val['images'][:3]
    kept = {image['id'] for image in val['images']}
    val['annotations'] = [ann for ann in val['annotations'] if ann['image_id'] in kept]
    small_val = tmp_path / 'val.json'
    small_val.write_text(json.dumps(val))
    options = [
        f'variables.data_root={DSB2018}',
        'variables.percent=95',
        f'steps.data.kwargs.val={small_val}',
        'report.images=2',
    ]
    process = start('cast_dsb2018.py', tmp_path / 'run', *options)
    output = process.communicate()[0]
    assert process.returncode == 0, output[-3000:]
    assert all(record['status'] == 'finished' for record in records(tmp_path / 'run').values())


@pytest.mark.shared_data
def test_ten_percent_of_the_nuclei_are_33_images(tmp_path):
    if not DSB2018.is_dir():
        pytest.skip(f'{DSB2018} is absent')
    paths = prepare_coco_folder(DSB2018, tmp_path, percent=10)
    labeled, unlabeled = (
        json.loads(Path(paths[part]).read_text()) for part in ('labeled', 'unlabeled')
    )
    assert (len(labeled['images']), len(unlabeled['images']), unlabeled['annotations']) == (
        33,
        298,
        [],
    )


def test_absent_nuclei_are_one_readable_line(tmp_path):
    process = start('cast_dsb2018.py', tmp_path / 'run', f'variables.data_root={tmp_path}/nowhere')
    output = process.communicate()[0]
    assert process.returncode == 1
    last = output.strip().splitlines()[-1]
    assert (
        last.startswith('error: ')
        and f'{tmp_path}/nowhere' in last
        and 'variables.data_root' in last
    )
