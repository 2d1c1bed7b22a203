"""The whole of cast_custom_foundation.py, with tiny networks and few iterations, on a set as people
have it: three classes with odd names, portrait and landscape images, one without objects.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from devices import ON_GPU
from mmengine.config import Config
from tiny_networks import STUDENT, backbone, write_downloads

from mmcast.cli.train import train
from mmcast.configs import find_config
from mmcast.errors import CASTError
from mmcast.masks.rle import encode_mask
from mmcast.pipeline.state import read_fingerprint
from mmcast.testing.teacher import tiny_sam3_sizes, tiny_teacher_sizes
from mmcast.typed_values import Typed

CLASSES = ['Zelle', 'Rand (x)', 'nucleus']
PROMPTS = {'Zelle': ['cell', 'living cell'], 'Rand (x)': 'edge'}
SIZES = [(64, 112), (112, 64), (72, 96), (100, 70), (64, 112), (96, 72)]  # height and width
WITHOUT_WORKERS = {
    f'{loader}.{key}': value
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
    for key, value in dict(num_workers=0, persistent_workers=False).items()
}


def draw(size, number, seed):
    """An image (H, W, 3) with some rectangles on noise, and their masks."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 90, (*size, 3), dtype=np.uint8)
    masks = []
    for i in range(number):
        top, left = (int(rng.integers(0, side - 30)) for side in size)
        height, width = rng.integers(14, 30, 2)
        mask = np.zeros(size, bool)
        mask[top : top + height, left : left + width] = True
        image[mask] = (250, 120, 40 * i)
        masks.append(mask)
    return image, masks


def write_data(folder):
    """Six labeled images, the last one without objects, and four unlabeled ones."""
    images, annotations = [], []
    for i, size in enumerate(SIZES):
        image, masks = draw(size, 3 if i < 5 else 0, seed=i)
        name = f'photo {i}.png'
        (folder / 'photos').mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / 'photos' / name), image)
        images.append(dict(id=i, file_name=name, height=size[0], width=size[1]))
        for j, mask in enumerate(masks):
            top, left = np.argwhere(mask).min(0).tolist()
            height, width = (np.argwhere(mask).max(0) + 1 - (top, left)).tolist()
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=i,
                    category_id=j + 1,
                    iscrowd=0,
                    bbox=[left, top, width, height],
                    area=int(mask.sum()),
                    segmentation=encode_mask(mask),
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'labels.json').write_text(json.dumps(content))
    for i in range(4):
        image, _ = draw(SIZES[i], 2, seed=10 + i)
        (folder / 'more').mkdir(exist_ok=True)
        cv2.imwrite(str(folder / 'more' / f'{i}.png'), image)


@pytest.fixture(scope='module')
def downloads(tmp_path_factory):
    folder = tmp_path_factory.mktemp('downloads')
    write_data(folder / 'data')
    return dict(data_root=str(folder / 'data'), **write_downloads(folder))


BACKBONE = {key: value for key, value in backbone(None).items() if key != 'init_cfg'}
HEAD = {key: value for key, value in STUDENT['panoptic_head'].items() if key != 'num_queries'}
TEACHERS = dict(
    grounded_sam={
        'model.detector': tiny_teacher_sizes(),
        'model.detector.grounding_dino.test_cfg.score_thr': 0.0,
    },
    sam3={
        'model.detector': tiny_sam3_sizes(),
        'model.detector.test_cfg.score_thr': 0.0,
        'model.pixel_contrast.in_channels': 32,
    },
)
STUDENTS = dict(
    cast_student={
        'model.detector': dict(panoptic_head=HEAD, backbone=BACKBONE),
        'model.detector.train_cfg.num_points': 64,
        'model.pixel_contrast.pool': 1,
        'model.pixel_contrast.in_channels': 16,
    },
    cast_lite={'model.detector.train_cfg.num_points': 64},
)


def write_config(folder, downloads, teacher, student, **variables):
    """A config of one's own: nothing but sizes, numbers of iterations and paths differ from the
    shipped one.
    """
    variables = (
        dict(
            downloads,
            labeled='labels.json',
            unlabeled='more',
            prompts=PROMPTS,
            teacher=teacher,
            student=student,
            gpu=16,
            teacher_iterations=2,
            self_training_iterations=2,
            student_iterations=2,
            refine_iterations=1,
            teacher_batch_size=2,
            student_batch_size=2,
            teacher_options={**TEACHERS[teacher], **WITHOUT_WORKERS},
            student_options={**STUDENTS[student], **WITHOUT_WORKERS},
            score_thr=0.01,
        )
        | variables
    )
    path = Path(folder, 'own.py')
    path.write_text(
        f'_base_ = {str(find_config("cast_custom_foundation.py"))!r}\n'
        f'work_dir = {str(folder / "run")!r}\nvariables = {variables!r}\nreport = dict(images=1)\n'
    )
    return str(path)


WAYS = [
    ('grounded_sam', 'cast_student', {}),
    ('sam3', 'cast_lite', dict(student_encoder=None, image_size=96)),
]


@pytest.mark.parametrize('device', ['any', ON_GPU])  # MMEngine takes the GPU where there is one
@pytest.mark.parametrize('teacher, student, own', WAYS)
def test_from_a_folder_to_a_student(tmp_path, downloads, teacher, student, own, device):
    path = write_config(tmp_path, downloads, teacher, student, **own)
    train(path)
    run = tmp_path / 'run'
    steps = json.loads((run / 'pipeline.json').read_text())['steps']
    assert {record['status'] for record in steps.values()} == {'finished'}
    assert steps['data']['outputs']['classes'] == CLASSES
    assert steps['adapt_labeled']['iterations'] == 2  # what the plan said
    network = read_fingerprint(run / '05_adapt_labeled', 'adapt_labeled').settings
    assert network['model.detector.prompts.Zelle.1'] == "'living cell'"
    assert network['model.detector.classes.1'] == "'Rand (x)'"
    labels = json.loads((run / '08_pseudo_label_2/annotations.json').read_text())
    assert len(labels['images']) == 4 and labels['annotations'] and not labels['unreadable']

    table = (run / '02_plan/plan.txt').read_text()
    assert 'class Zelle ' in table and "asked for by 'cell', 'living cell'" in table
    assert '50% portrait' in table and '1 images without any' in table
    assert '\nscore_thr' in table and 'given by you' in table
    for page in ('report.html', 'student/model_card.md'):
        text = (run / page).read_text()
        assert 'Settings and why' in text and 'short side 67 px' in text
    card = (run / 'student/model_card.md').read_text()
    assert ('SAM License, Meta' in card) == (teacher == 'sam3')
    assert ('grounding_dino.pth' in card) == (teacher == 'grounded_sam')
    assert ('dinov2.pth' in card) == (student == 'cast_student')
    student = Config.fromfile(run / 'student/student.py').model
    assert student.panoptic_head.num_things_classes == 3
    assert student.panoptic_head.num_queries == 30


@pytest.mark.gpu
@pytest.mark.parametrize('gpu', [16, 24, 80])
@pytest.mark.parametrize('teacher, student, own', WAYS)
def test_each_preset_adapts_its_teacher_on_a_gpu(tmp_path, downloads, teacher, student, own, gpu):
    """In the precision, with the adapters and the caches that it has."""
    path = write_config(tmp_path, downloads, teacher, student, gpu=gpu, **own)
    names = ['data', 'plan', 'start', 'adapt_labeled', 'pseudo_label_1']
    train(path, step=names)
    steps = json.loads((tmp_path / 'run/pipeline.json').read_text())['steps']
    assert all(steps[name]['status'] == 'finished' for name in names)


@pytest.mark.parametrize(
    'variables, message',
    [
        (dict(prompts={'Zellen': 'cell'}), "prompts: no class 'Zellen'; did you mean Zelle"),
        (dict(gpu=12), 'variables.gpu is 12; there are 16, 24, 80'),
        (dict(image_size='large'), 'variables.image_size is a whole number from 1'),
        (dict(teacher_options={'train_cfg.max_itres': 3}), 'did you mean max_iters'),
        (dict(dinov2='weights/none.pth'), 'weights file weights/none.pth not found'),
        (
            dict(dinov2='no.pth', sam2='none.pt', grounding_dino='nil.pth'),
            r'3 problems: \(1\) .*no.pth.*; \(2\) .*nil.pth.*; \(3\) .*none.pt',
        ),
    ],
)
def test_a_mistake_is_named_before_anything_trains(tmp_path, downloads, variables, message):
    path = write_config(tmp_path, downloads, 'grounded_sam', 'cast_student', **variables)
    with pytest.raises(CASTError, match=message):
        train(path)
    assert not list((tmp_path / 'run').rglob('*.log'))


def test_a_value_from_the_command_line_wins_and_the_plan_says_so(tmp_path, downloads):
    path = write_config(tmp_path, downloads, 'sam3', 'cast_student')
    options = {'variables.window': Typed('140'), 'variables.prompts.nucleus': Typed('kernel,core')}
    train(path, step=['data', 'plan'], cfg_options=options)
    plan = json.loads((tmp_path / 'run/02_plan/plan.json').read_text())
    assert plan['transfer']['model.detector.test_cfg.windows']['size'] == 140
    assert plan['student_transforms']['RandomCrop'] == dict(crop_size=[140, 140])
    assert plan['adapt_labeled']['model.detector.prompts']['nucleus'] == ['kernel', 'core']
    why = {row['setting']: row['why'] for row in plan['decisions']}
    assert why['window'] == 'given by you'
    assert why['class nucleus'] == "asked for by 'kernel', 'core'"
