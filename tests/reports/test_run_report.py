import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_api

from mmcast.cli.train import train
from mmcast.reports import overlays
from mmcast.reports.html import plot_text, render
from mmcast.reports.labels_on_images import class_colours, draw_labels
from mmcast.reports.overlays import Line, Overlays, choose_report_images, write_contact_sheet
from mmcast.reports.run import _plot
from mmcast.reports.summary import COLUMNS, write_summary
from mmcast.training.curves import not_finite, read_curves

PIPELINE = """
variables = dict(root='.')
steps = [dict(name='data', kind='call', function='toy_run.make_data',
              kwargs=dict(folder='{work_dir}/data'))]
summary = [dict(row='<data>', step='data')]
report = dict(
    images=3, ann_file='{root}/val.json', img_dir='{root}/images', score_thr=0.4, columns=[
    dict(title='teacher pseudo-labels', config='step.py', checkpoint='{root}/teacher.pth'),
    dict(title='student', config='step.py', checkpoint='{root}/student.pth')])
"""


def square(x: int, y: int, side: int, height: int = 60, width: int = 80) -> dict:
    mask = np.zeros((height, width), np.uint8, order='F')
    mask[y : y + side, x : x + side] = 1
    rle = mask_api.encode(mask)
    return dict(rle, counts=rle['counts'].decode())


@pytest.fixture
def labels(tmp_path: Path) -> dict:
    """Six grey images of 80 x 60 pixels with a square each, but none in the first."""
    (tmp_path / 'images').mkdir()
    images = [dict(id=index, file_name=f'{index}.png', width=80, height=60) for index in range(6)]
    for image in images:
        cv2.imwrite(
            str(tmp_path / 'images' / image['file_name']), np.full((60, 80, 3), 128, np.uint8)
        )
    annotations = [
        dict(
            id=index,
            image_id=index,
            category_id=1 + index % 2,
            segmentation=square(10, 20, 30),
            iscrowd=0,
        )
        for index in range(1, 6)
    ]
    categories = [dict(id=1, name='car'), dict(id=2, name='bus')]
    content = dict(images=images, annotations=annotations, categories=categories)
    (tmp_path / 'val.json').write_text(json.dumps(content))
    return content


def test_report_is_one_file_with_everything(labels, tmp_path, monkeypatch):
    asked = []

    def predict(config, checkpoint, out_file, *, ann_file, img_dir, score_floor, progress):
        asked.append((Path(checkpoint).name, score_floor))
        images = json.loads(Path(ann_file).read_text())['images']
        found = [
            dict(
                id=1,
                image_id=images[0]['id'],
                category_id=1,
                score=0.9,
                segmentation=square(5, 5, 9),
            )
        ]
        Path(out_file).write_text(
            json.dumps(dict(images=images, annotations=found, categories=labels['categories']))
        )

    monkeypatch.setattr(overlays, 'generate_pseudo_labels', predict)
    monkeypatch.chdir(tmp_path)
    Path('cast_test.py').write_text(PIPELINE)
    Path('step.py').write_text('model = dict()')
    for name in ('teacher.pth', 'student.pth'):
        Path(name).write_text(name)
    scalars = tmp_path / 'work/01_data/20250101_000000/vis_data'
    train('cast_test.py', 'work')
    scalars.mkdir(parents=True)
    (scalars / 'scalars.json').write_text('{"loss": 2.5, "step": 1}\n{"loss": 1.5, "step": 2}\n')
    train('cast_test.py', 'work')

    page = Path('work/report.html').read_text()
    assert page.count('data:image/jpeg') == 9  # 3 images, ground truth and two models
    assert page.count('data:image/svg+xml') == 1  # the learning curve
    assert 'src="data:' in page and page.count('src="') == page.count('src="data:')
    assert 'http://' not in page and 'https://' not in page and str(tmp_path) not in page
    assert '&lt;data&gt;' in page and 'teacher pseudo-labels' in page and 'bus' in page
    assert cv2.imread('work/report.png').shape[1] > 800
    assert asked == [('teacher.pth', 0.4), ('student.pth', 0.4)]  # the second call found them

    Path('student.pth').write_text('trained on')
    train('cast_test.py', 'work')
    assert asked[2:] == [('student.pth', 0.4)]


@pytest.mark.parametrize('key, label', [('pxl_margin', 'margin'), ('online_labels', 'labels')])
def test_curves_of_pixel_loss_and_online_teacher_get_a_panel_of_their_own(key, label):
    curves = dict(loss=[(1, 2.0), (2, 1.0)])
    without = base64.b64decode(_plot(curves).partition(',')[2]).decode()
    with_it = base64.b64decode(
        _plot(curves | {key: [(1, 0.4), (2, 0.5)]}).partition(',')[2]
    ).decode()
    assert without.count('id="axes_') == 2 and with_it.count('id="axes_') == 3
    assert f'<!-- {label} -->' in with_it and f'<!-- {label} -->' not in without


def test_images_are_spread_over_the_annotated_ones(labels):
    assert [image['id'] for image in choose_report_images(labels, 3)] == [1, 3, 5]
    assert [image['id'] for image in choose_report_images(labels, 99)] == [1, 2, 3, 4, 5]


def test_drawing_colours_an_instance_and_nothing_else(labels, tmp_path):
    drawing = draw_labels(tmp_path / 'images/1.png', labels, 1, dict(car='#0000ff', bus='#ff0000'))
    assert drawing.shape == (360, 480, 3)  # 6 times as large
    assert (drawing[:118] == 128).all() and (drawing[:, 245:] == 128).all()
    red, _, blue = drawing[200, 150].astype(int)
    assert red > 150 and blue < 100  # a bus
    assert tuple(drawing[120, 150]) == (255, 0, 0)  # its outline


@pytest.mark.parametrize(('width', 'height'), [(900, 1), (1, 900)])
def test_the_thinnest_images_are_drawn(labels, tmp_path, width, height):
    """A report that comes after hours of training must not end at one picture."""
    cv2.imwrite(str(tmp_path / 'thin.png'), np.full((height, width, 3), 128, np.uint8))
    rle = square(0, 0, 1, height, width)
    labels['annotations'] = [dict(id=1, image_id=1, category_id=1, segmentation=rle)]
    drawing = draw_labels(tmp_path / 'thin.png', labels, 1, {})
    assert min(drawing.shape) >= 1 and drawing.size < 20e6


def test_names_of_classes_may_hold_what_matplotlib_takes_for_formulas(tmp_path):
    names = ['$5 and $6', r'a$\frac$', '_hidden', 'caf\udce9']
    image = np.zeros((6, 8, 3), np.uint8)
    overlays = Overlays(['$x^', 'b$$'], [Line('a.png', [image, image])], class_colours(names), 0.3)
    write_contact_sheet(overlays, tmp_path / 'sheet.png')
    assert cv2.imread(str(tmp_path / 'sheet.png')).size
    assert plot_text('$5 and $6') == r'\$5 and \$6' and plot_text('_hidden').strip() == '_hidden'


def test_text_that_is_not_unicode_is_escaped_on_a_page(tmp_path):
    """JSON may hold halves of characters, as names of classes; no file can."""
    (tmp_path / 'page.j2').write_text('<p>{{ name }}</p>')
    assert render(tmp_path / 'page.j2', name='caf\udce9 ü') == r'<p>caf\udce9 ü</p>'


def test_curves_of_a_resumed_run_are_joined(tmp_path):
    for number, lines in enumerate(
        [
            '{"loss": 3.0, "step": 1}\n{"loss": 2.0, "step": 2}\n{"lo',
            '{"loss": 1.5, "step": 2}\n{"loss": NaN, "step": 3}\n',
        ]
    ):
        folder = tmp_path / f'2025010{number}_000000/vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text(lines)
    points = read_curves(tmp_path)['loss']
    assert points[:2] == [(1, 3.0), (2, 1.5)] and points[2][0] == 3
    assert not_finite(tmp_path) == ['loss']


def test_a_row_in_brackets_stays_in_the_table(tmp_path):
    row = dict.fromkeys(COLUMNS) | dict(row='student [/red] [2]')
    assert 'student [/red] [2]' in write_summary(tmp_path, [row])
