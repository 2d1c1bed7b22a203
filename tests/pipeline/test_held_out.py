"""Thresholds of pseudo-labels chosen on images that a teacher has not learned from."""

import gc
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_teacher import HEIGHT, WIDTH, make_data
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from stored_labels import label

from mmcast.errors import CASTError
from mmcast.pipeline import held_out
from mmcast.pipeline.held_out import number_of_folds, short_run
from mmcast.pipeline.pipeline import PipelineRun, run_pipeline
from mmcast.pipeline.plan import Plan

STEP_CONFIG = """
custom_imports = dict(imports=['colour_teacher', 'toy_run'])
default_scope = 'mmcast'
pipeline = [dict(type='LoadImage'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape'))]
model = dict(type='ColourTeacher', with_factors=True)
labeled = dict(type='CocoDataset', ann_file='none.json', pipeline=pipeline,
               metainfo=dict(classes=('person', 'car')))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler'), dataset=labeled)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(labeled, test_mode=True))
test_dataloader = val_dataloader
val_evaluator = dict(type='ToyMetric')
test_evaluator = val_evaluator
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4, save_best='auto'))
log_processor = dict(by_epoch=False)
log_level = 'ERROR'
"""
STUDENT_CONFIG = """
_base_ = './teacher.py'
pseudo = dict(dict(_base_.labeled, type='PseudoLabelDataset'), score_thr=0.2, min_visible=0.5)
train_dataloader = dict(dataset=dict(
    _delete_=True, type='ConcatDataset', datasets=[_base_.labeled, pseudo]))
"""
PIPELINE_CONFIG = """
variables = dict(threshold_folds=None)
images = '{config_dir}/images'
datasets = dict(
    labeled='{config_dir}/labeled.json', train_images=images, val='{config_dir}/val.json',
    val_images=images, test='{config_dir}/labeled.json',
    unlabeled='{config_dir}/images.json', unlabeled_images=images)
steps = dict(
    adapt=dict(kind='train', config='teacher.py', load_from='{config_dir}/teacher.pth'),
    label=dict(kind='pseudo_label', config='teacher.py', checkpoint='{adapt.checkpoint}', flip=True,
               limit=2),
    folds=dict(kind='folds', folds='{threshold_folds}', train=['adapt'], fewest_images=3),
    thresholds=dict(kind='thresholds', folds='{threshold_folds}', held_out='{folds.held_out}',
                    label='label', used_by='student', fewest_objects=3),
    student=dict(kind='train', config='student.py', load_from='{config_dir}/teacher.pth',
                 pseudo_labels='{label.annotations}', thresholds='{thresholds.thresholds}'))
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch) -> Path:
    """A teacher that is right about people and takes other things for cars, and four labeled images
    of one person each.
    """
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    gc.freeze()
    content = json.loads((make_data(tmp_path) / 'images.json').read_text())
    people = []
    for image in content['images']:
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[2:6, image['id'] % 10 : image['id'] % 10 + 7] = image['id'] != 12  # that one is black
        people.append(dict(label(3, mask), id=image['id'], image_id=image['id']))
    people = [person for person in people if person['area']]
    write_coco(tmp_path / 'labeled.json', content, people, range(10, 14))
    write_coco(tmp_path / 'val.json', content, people, range(13, 15))
    (tmp_path / 'teacher.py').write_text(STEP_CONFIG)
    (tmp_path / 'student.py').write_text(STUDENT_CONFIG)
    (tmp_path / 'cast_test.py').write_text(PIPELINE_CONFIG)
    return tmp_path / 'cast_test.py'


def write_coco(path, content, annotations, ids):
    images = [image for image in content['images'] if image['id'] in ids]
    chosen = [ann for ann in annotations if ann['image_id'] in ids]
    path.write_text(json.dumps(dict(content, images=images, annotations=chosen)))


def run(config: Path, folds, **options) -> PipelineRun:
    return run_pipeline(
        config, config.parent / 'work', cfg_options={'variables.threshold_folds': folds}, **options
    )


def test_steps_that_are_off_do_not_exist_and_change_nothing(config):
    for folds in (None, 0, '0'):
        plan = Plan(config, cfg_options={'variables.threshold_folds': folds})
        assert list(plan.definitions) == ['adapt', 'label', 'student']
        assert plan.needs('student') == {'label'}


def test_each_fold_is_labeled_by_a_teacher_that_has_not_seen_it(config, monkeypatch, capsys):
    trained, train = [], held_out.train_run

    def interrupted(cfg, resume_from):
        trained.append(Path(cfg.work_dir).name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(cfg, resume_from)

    monkeypatch.setattr(held_out, 'train_run', interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(config, 3)
    done = run(config, '3')
    assert trained == ['fold_1_adapt', 'fold_2_adapt', 'fold_2_adapt', 'fold_3_adapt']
    assert 'fold 1 is finished' in capsys.readouterr().out

    folds = done.state.outputs('folds')['held_out']
    seen = [json.loads(Path(fold['ann_file']).read_text())['images'] for fold in folds]
    assert sorted(image['id'] for images in seen for image in images) == [10, 11, 12, 13]
    for number, fold in enumerate(folds, 1):
        path = Path(fold['ann_file']).with_name(f'fold_{number}_labeled.json')
        others = {image['id'] for image in json.loads(path.read_text())['images']}
        assert others == {10, 11, 12, 13} - {image['id'] for image in seen[number - 1]}
        assert Path(fold['checkpoint']).name == 'iter_2.pth'  # half of the four iterations

    found = json.loads(Path(done.state.outputs('thresholds')['thresholds']).read_text())
    assert found['num_images'] == 4 and found['settings']['views'] == dict(flip=True)
    assert 'images' not in found  # or the model card would count its labels
    assert found['settings']['min_visible'] == 0.5
    person, car = found['classes']['person'], found['classes']['car']
    # People are all found and right: as low as may be. The three cars, of 0.5, are none.
    assert (person['threshold'], person['f1'], person['objects']) == (0.1, 1, 3)
    assert car['chosen_on'] == 'all classes' and 0.5 < car['threshold'] < 0.88
    assert (car['labels'], car['f1_at_score_thr'], found['all']['f1']) == (0, 0, 1)
    assert found['all']['f1_at_score_thr'] == pytest.approx(6 / 9)
    assert [row['setting'] for row in done.decisions] == ['folds', 'thresholds of student']
    assert (
        'F1 100.0 on 4 held-out labeled images (3 objects), 66.7 with' in done.decisions[1]['why']
    )

    student = done.plan.step('student', config.parent, done.state).config
    pseudo = student.train_dataloader.dataset.datasets[1]
    assert pseudo.thresholds_from == dict(held_out=done.state.outputs('thresholds')['thresholds'])
    assert pseudo.score_thr == 0  # those of the file are final
    with pytest.raises(CASTError, match=r'step folds \(step\.folds: 3 -> 2\)'):
        run(config, 2)


def test_on_validation_images_the_teacher_itself_is_asked(config):
    """Those of tests, which figures are reported of, choose nothing."""
    done = run(config, 'val')
    assert list(done.state.records) == ['adapt', 'label', 'thresholds', 'student']
    found = json.loads(Path(done.state.outputs('thresholds')['thresholds']).read_text())
    assert found['num_images'] == 2
    person = found['classes']['person']  # of two people nothing is chosen
    assert (person['chosen_on'], person['threshold']) == ('score_thr', 0.2)
    store = json.loads((config.parent / 'work/03_thresholds/held_out_1.json').read_text())
    assert [image['id'] for image in store['images']] == [13, 14]
    assert done.decisions[0]['why'] == (
        '2 objects on 2 validation images: fewer than 3, or none is found, so score_thr stays'
    )


def test_of_too_few_images_no_folds_are_made(config):
    (config.parent / 'more.py').write_text(
        "_base_ = './cast_test.py'\nsteps = dict(folds=dict(fewest_images=5), label=dict(limit=1))"
    )
    done = run(config.with_name('more.py'), 3)
    assert done.state.outputs('thresholds')['thresholds'] is None
    assert 'has 4 images, fewer than 5: thresholds stay' in done.decisions[0]['why']
    student = done.plan.step('student', config.parent, done.state)
    assert 'thresholds' not in student.definition
    assert 'thresholds_from' not in student.config.train_dataloader.dataset.datasets[1]


@pytest.mark.parametrize(
    'change, message',
    [
        (
            'variables = dict(threshold_folds=1)',
            r'variables\.threshold_folds is 1: give the number of folds',
        ),
        (
            "steps = dict(folds=dict(train=['label']))",
            r'names label, which is no step of kind train',
        ),
        (
            "steps = dict(thresholds=dict(used_by='pupil'))",
            r'names pupil, which is no step of kind train',
        ),
        ("steps = dict(thresholds=dict(used_by='adapt'))", r'reads no pseudo-labels'),
        ('steps = dict(folds=dict(fraction=0))', r'fraction is 0: give a number above 0, up to 1'),
        ('steps = dict(thresholds=dict(fewest_objects=0.5))', r'fewest_objects is 0\.5: give'),
        ('steps = dict(thresholds=dict(lowest=1))', r'lowest is 1: give a number from 0 to below'),
        ('steps = dict(folds=dict(part=1))', r'does not know part'),
        ("steps = dict(adapt=dict(thresholds='x.json'))", r'adapt has thresholds, but'),
        ('steps = dict(student=None, other=dict(_base_.steps.student))', r'names student, which'),
    ],
)
def test_mistakes_are_named_before_anything_runs(config, change, message):
    text = (
        change
        if change.startswith('variables')
        else f'variables = dict(threshold_folds=3)\n{change}'
    )
    config.with_name('changed.py').write_text(f"_base_ = './cast_test.py'\n{text}")
    with pytest.raises(CASTError, match=message):
        Plan(config.with_name('changed.py'))


def test_steps_for_one_that_was_taken_out_do_not_exist(config):
    config.with_name('changed.py').write_text(
        "_base_ = './cast_test.py'\nsteps = dict(student=None)"
    )
    plan = Plan(config.with_name('changed.py'), cfg_options={'variables.threshold_folds': 3})
    assert list(plan.definitions) == ['adapt', 'label']


def test_thresholds_on_folds_that_no_step_makes_are_refused(config):
    """They would not be chosen, and all labels be read with score_thr."""
    with pytest.raises(CASTError, match='folds=3, but no step makes folds; set variables.threshol'):
        Plan(config, cfg_options={'steps.thresholds.folds': 3})
    assert Plan(config, cfg_options={'steps.thresholds.folds': 'val'})


def test_components_that_are_adapted_in_turn_are_adapted_in_turn_without_each_fold():
    """The second starts from the first one's weights of that fold, not from those that know all."""
    plan = Plan('cast_cityscapes_single_gpu.py', cfg_options={'variables.threshold_folds': 3})
    assert plan.needs('folds') == {'data', 'start'}
    assert plan.iterations('folds') == 3 * (2000 + 3000)


def test_a_teacher_without_a_fold_starts_from_the_one_that_stands_in_for_its_own_start(config):
    """Adapted without that fold too: else thresholds would be chosen on labels that it knows."""
    config.with_name('changed.py').write_text("""
_base_ = './cast_test.py'
variables = dict(threshold_folds=3)
teacher = dict(kind='train', config='teacher.py')
steps = dict(
    more=dict(teacher, enabled=False, instead='adapt', load_from='{adapt.checkpoint}'),
    last=dict(teacher, load_from='{more.checkpoint}'),
    folds=dict(train=['adapt', 'last']))
""")
    assert Plan(config.with_name('changed.py')).needs('folds') == set()
    named = {'steps.folds.train': ['adapt', 'more', 'last']}
    with pytest.raises(CASTError, match='folds names a step, but step more does not run'):
        Plan(config.with_name('changed.py'), cfg_options=named)


def test_cycles_of_a_short_run_end_with_it():
    """Begin and length rounded apart may end before the run; OneCycleLR fails at that."""
    config = Config.fromfile('configs/toy/toy_teacher_adapt_labeled.py')
    config.train_cfg.max_iters = 105
    common = dict(by_epoch=False, begin=10)
    config.param_scheduler = [
        dict(type='OneCycleLR', eta_max=0.1, total_steps=95, **common),
        dict(
            type='CosineRestartLR', eta_min=0, periods=[15, 15, 65], restart_weights=[1], **common
        ),
    ]
    run = short_run(config, 'some.json', 0.3)
    cycle, restarts = run.param_scheduler
    assert (run.train_cfg.max_iters, cycle['begin']) == (32, 3)
    assert cycle['total_steps'] == sum(restarts['periods']) == 29
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = PARAM_SCHEDULERS.build(dict(cycle, optimizer=optimizer))
    for _ in range(run.train_cfg.max_iters):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]['lr'] < 1e-3


def test_a_short_run_has_the_same_schedule_in_less_time():
    config = Config.fromfile('configs/toy/toy_teacher_adapt_labeled.py')
    config.param_scheduler.append(dict(type='MultiStepLR', by_epoch=False, milestones=[100, 120]))
    config.param_scheduler.append(dict(type='OneCycleLR', by_epoch=False, total_steps=150))
    config.param_scheduler.append(dict(type='CosineRestartLR', by_epoch=False, periods=[50, 100]))
    config.custom_hooks.append(dict(type='EarlyStoppingHook', monitor='coco/segm_mAP'))
    run = short_run(config, 'some.json', 0.4)
    assert run.train_cfg.max_iters == 60
    warm_up, poly, steps, cycle, restarts = run.param_scheduler
    assert (cycle['total_steps'], restarts['periods']) == (60, [20, 40])
    assert (warm_up['begin'], warm_up['end'], steps['milestones']) == (0, 20, [40, 48])
    assert 'end' not in poly
    assert run.val_cfg is None and run.train_dataloader.dataset.ann_file == 'some.json'
    assert run.train_dataloader.dataset.data_prefix.img.endswith('leftImg8bit/train/')
    assert [hook['type'] for hook in run.custom_hooks] == ['PixelDiagnosticsHook']
    assert config.train_cfg.max_iters == 150 and config.val_cfg is not None


def test_folds_as_a_person_writes_them():
    values = (None, 'None', 0, '0', 3, '3', 'val')
    assert [number_of_folds(value, 'x') for value in values] == [0, 0, 0, 0, 3, 3, 'val']
    for value in (1, -2, 2.5, 'all', True):
        with pytest.raises(CASTError, match=f'x is {value}: give'):
            number_of_folds(value, 'x')
