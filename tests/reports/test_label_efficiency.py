"""The point of a run on the curve of AP over the number of labels."""

import base64
import json

import pytest

from mmcast.pipeline.plan import Plan
from mmcast.reports.label_efficiency import FILE, final_steps, other_points, picture

OWN = dict(
    row='student, refined', step='refine', mask_ap=25.3, images=3, objects=32, labels='a',
    tested_on='val',
)  # fmt: skip


@pytest.mark.parametrize(
    ('pipeline', 'steps'),
    [
        ('cast_toy.py', {'adapt_self_training', 'refine'}),
        ('cast_cityscapes_single_gpu.py', {'adapt_self_training', 'refine'}),
        ('baselines/cast_toy_baselines.py', {'supervised', 'supervised_all'}),
    ],
)
def test_students_baselines_and_the_last_teacher_have_points(pipeline, steps, tmp_path):
    assert final_steps(Plan(pipeline, tmp_path)) == steps


def test_other_runs_count_where_they_were_tested_on_the_same_images(tmp_path):
    def write(name, *points):
        (tmp_path / name).mkdir()
        (tmp_path / name / FILE).write_text(json.dumps(dict(points=points)))
        return str(tmp_path / name)

    baseline = OWN | dict(row='supervised', mask_ap=20.0)
    same = write('same', baseline, baseline | dict(images=8, labels='b'))
    seed = write('seed', baseline | dict(labels='c'))
    other = write('other', baseline | dict(tested_on='test'))
    damaged = write('damaged', dict(row='supervised'))
    folders = [same, seed, other, damaged, write('empty'), str(tmp_path / 'none')]
    found, notes = other_points(folders, [OWN])
    assert [(one['run'], one['images']) for one in found] == [
        ('same', 3),
        ('same', 8),
        ('seed', 3),
    ]
    assert len(notes) == 5
    for note, part in zip(
        notes,
        (
            'seed: supervised learned from 3 other images',
            'other was tested on other images: 1 left out',
            'damaged/label_efficiency.json is damaged',
            'empty has no point',
            'none has no label_efficiency.json',
        ),
    ):
        assert part in note


def test_a_picture_names_rows_runs_images_and_objects():
    points = [
        OWN,
        OWN | dict(row='$supervised', mask_ap=20.0, run='baselines'),
        OWN | dict(images=331, objects=9000, mask_ap=40.0, run='all'),
        OWN | dict(images=331, objects=8999, mask_ap=40.0, run='too'),
    ]
    drawn = base64.b64decode(picture(points).partition(',')[2]).decode()
    for text in (
        'student, refined: 25.3',
        '$supervised (baselines): 20.0',  # as written, no formula
        '3',
        '(32 objects)',
        '331',
    ):
        assert f'<!-- {text} -->' in drawn, text
    assert drawn.count(' objects) -->') == 1  # those of 331 images are two numbers
