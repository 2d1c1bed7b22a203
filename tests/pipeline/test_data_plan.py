"""The rules of the plan step: what they choose for data of known sizes."""

import json
from pathlib import Path

import pytest
from data_plans import any_plan, plan_of, squares, why

from mmcast.errors import CASTError
from mmcast.pipeline.data_plan import CROPS, STUDENTS, TEACHERS
from mmcast.pipeline.plan import Plan
from mmcast.training.overrides import nested
from mmcast.typed_values import Typed

TEACHER_STEPS = ('adapt_labeled', 'adapt_self_training')


def test_images_of_usual_size_with_large_objects_are_taken_whole(tmp_path):
    size = (480, 640)
    plan = plan_of(tmp_path, [size] * 30, [squares(4, 60, size)] * 30, gpu=24)
    for step in TEACHER_STEPS:
        assert plan[step]['model.detector.windows'] is None
    assert plan['transfer']['model.detector.test_cfg.windows'] is None
    assert plan['student_transforms']['Resize']['scale'] == [4 * 480, 480]
    assert plan['student_transforms']['RandomCrop']['crop_size'] == [490, 490]  # patches of 14
    assert plan['teacher_transforms']['Resize']['scale'] == [2048, 480]
    assert plan['num_queries'] == 30


@pytest.mark.parametrize('gpu', CROPS)
@pytest.mark.parametrize('teacher', TEACHERS)
def test_small_objects_in_large_images_are_looked_for_in_windows(tmp_path, teacher, gpu):
    """In both networks' inputs they are 16 pixels large, and a large one fits into the overlap."""
    size = (2000, 3000)
    boxes = [*squares(20, 18, size), *squares(3, 90, size, label=1)]
    plan = plan_of(tmp_path, [size] * 3, [boxes] * 3, teacher=teacher, gpu=gpu)
    windows = plan['adapt_labeled']['model.detector.windows']
    assert 18 * TEACHERS[teacher].short / windows['size'] >= 15.5
    assert windows['size'] < 2000 and windows['overlap'] >= 90
    assert plan['teacher_transforms']['Resize']['scale'][1] == 2000
    assert plan['teacher_transforms']['RandomCrop']['crop_size'] == [windows['size']] * 2

    windows = plan['refine']['model.detector.test_cfg.windows']
    short = plan['student_transforms']['Resize']['scale'][1]
    assert 18 * short / 2000 >= 15.9
    assert plan['student_transforms']['RandomCrop']['crop_size'] == [CROPS[gpu] // 14 * 14] * 2
    assert CROPS[gpu] - 14 <= windows['size'] <= 1.25 * CROPS[gpu]
    assert windows['overlap'] >= 90 * short / 2000


def test_windows_that_would_cut_large_objects_are_not_taken(tmp_path):
    size = (2000, 3000)
    boxes = [*squares(6, 18, size), (1, 10, 10, 1800, 1700), (1, 900, 200, 1900, 1600)]
    plan = plan_of(tmp_path, [size] * 3, [boxes] * 3)
    assert plan['adapt_labeled']['model.detector.windows'] is None
    assert 'windows would cut large' in why(plan)['teacher_window']['why']
    assert plan['transfer']['model.detector.test_cfg.windows'] is None


def test_long_images_get_their_short_side_and_windows_where_the_teacher_sees_too_little(tmp_path):
    size = (100, 1000)
    plan = plan_of(tmp_path, [size] * 3, [squares(3, 10, size)] * 3)  # whole: 13 px
    windows = plan['adapt_labeled']['model.detector.windows']
    assert windows['size'] == 128 and windows['overlap'] == 32
    assert 'see small objects 13 px large, in windows 80 px' in why(plan)['teacher_window']['why']
    assert plan['student_transforms']['Resize']['scale'] == [2560, 256]


def test_more_objects_than_queries_are_looked_for_in_windows(tmp_path):
    size = (500, 500)
    plan = plan_of(tmp_path, [size] * 2, [squares(900, 24, size)] * 2, max_queries=100)
    windows = plan['transfer']['model.detector.test_cfg.windows']
    assert windows['size'] < 250 and plan['num_queries'] <= 100
    assert '900' in why(plan)['window']['why']
    assert plan['transfer']['model.detector.panoptic_head.num_queries'] == plan['num_queries']


def test_tiny_images_are_enlarged_so_that_objects_have_pixels(tmp_path):
    plan = plan_of(tmp_path, [(64, 64)] * 2, [squares(3, 20, (64, 64))] * 2)
    assert plan['student_transforms']['Resize']['scale'] == [1024, 256]
    assert plan['teacher_transforms']['Resize']['scale'] == [2048, 64]  # the teacher does it itself


@pytest.mark.parametrize(
    'labeled, unlabeled, first, second',
    [(297, 2678, 1000, 1000), (10, 30, 250, 250), (100, 60, 338, 540)],
)
def test_iterations_are_passes_over_the_images_within_the_recipes_bounds(
    tmp_path, labeled, unlabeled, first, second
):
    """Of batches of 8; a preset with smaller ones accumulates them and takes more iterations."""
    options = {'train_dataloader.batch_size': 2, 'optim_wrapper.accumulative_counts': 4}
    size = (100, 100)
    plan = plan_of(
        tmp_path,
        [size] * labeled,
        [squares(1, 30, size)] * labeled,
        unlabeled=unlabeled,
        gpu=16,
        presets=dict(grounded_sam={16: {**options, 'model.detector.frozen': ['sam2']}}),
    )
    assert plan['adapt_labeled']['train_cfg.max_iters'] == 4 * first
    assert plan['adapt_self_training']['train_cfg.max_iters'] == 4 * second
    assert plan['adapt_labeled']['model.detector.frozen'] == ['sam2']
    student = min(max(5000, -(-242 * (labeled + unlabeled) // 8)), 90000)
    assert plan['transfer']['train_cfg.max_iters'] == 4 * student
    assert plan['transfer']['optim_wrapper.accumulative_counts'] == 4
    assert plan['refine']['train_cfg.max_iters'] == -(-4 * student // 10)


def test_a_batch_of_one_takes_labeled_and_pseudo_labeled_images_by_turns(tmp_path):
    plan = any_plan(given=dict(teacher_batch_size='1', student_batch_size=3))
    assert plan['adapt_self_training']['train_dataloader.batch_size'] == 1
    assert plan['adapt_self_training']['train_dataloader.sampler.batch_size'] == 2
    assert plan['adapt_self_training']['optim_wrapper.accumulative_counts'] == 8
    assert plan['transfer']['train_dataloader.sampler.batch_size'] == 6


def test_checkpoints_are_saved_between_steps_of_the_optimizer():
    """In between, the gradients so far would be missing in a run that is resumed."""
    given = dict(teacher_batch_size=1, student_batch_size=2, student_iterations=1001)
    plan = any_plan(given=given)
    steps = [plan[name] for name in ('adapt_labeled', 'adapt_self_training', 'transfer', 'refine')]
    saved = [
        (step['optim_wrapper.accumulative_counts'], step['default_hooks.checkpoint.interval'])
        for step in steps
    ]
    assert [counts for counts, _ in saved] == [8, 8, 4, 4]
    assert all(interval > 0 and interval % counts == 0 for counts, interval in saved)
    assert saved[2][1] == 104  # a tenth, rounded up


@pytest.mark.parametrize('batch, images', [(1, 8), (2, 8), (3, 6), (4, 8), (5, 10), (7, 14)])
def test_steps_of_any_batch_size_hold_whole_batches_of_the_sampler(batch, images):
    """A training step refuses others."""
    size = dict(teacher_batch_size=batch, student_batch_size=batch)
    plan, state = Plan('cast_custom_foundation.py'), Finished(given=size)
    plan.check_batches(plan.definitions, state, 1)
    for name in ('adapt_self_training', 'transfer'):
        counts = state.left['plan'][name]['optim_wrapper.accumulative_counts']
        assert counts * batch == images


@pytest.mark.parametrize('processes', [1, 2, 3, 4, 8])
@pytest.mark.parametrize('gpu', CROPS)
@pytest.mark.parametrize('teacher', TEACHERS)
def test_processes_share_a_step_and_get_no_more_images_than_one_has_memory_for(
    teacher, gpu, processes
):
    plan = Plan('cast_custom_foundation.py')
    options = dict(teacher=teacher, gpu=gpu, presets=plan.config.presets)
    alone, together = (any_plan(**options, processes=number) for number in (1, processes))
    for name in ('adapt_labeled', 'adapt_self_training', 'transfer', 'refine'):
        fits, batch = (each[name]['train_dataloader.batch_size'] for each in (alone, together))
        assert batch % processes == 0 and batch // processes <= fits
        images = batch * together[name]['optim_wrapper.accumulative_counts']
        assert images == max(2 * processes, 8 // (2 * processes) * 2 * processes)
    plan.check_batches(plan.definitions, Finished(**options, processes=processes), processes)


def test_batches_that_a_later_step_would_refuse_are_refused_when_the_plan_is_known():
    plan = Plan('cast_custom_foundation.py')
    state = Finished(student_options={'train_dataloader.batch_size': 3})
    with pytest.raises(CASTError, match='step transfer: train_dataloader.batch_size is 3, that of'):
        plan.check_batches(plan.definitions, state, 1)
    plan.check_batches(['adapt_labeled', 'adapt_self_training'], state, 1)
    state = Finished()
    with pytest.raises(CASTError, match='step transfer: 4 processes cannot share batches of 4'):
        plan.check_batches(['plan', 'transfer'], state, 4)
    del state.left['plan']
    plan.check_batches(plan.definitions, state, 3)  # nothing is known yet


def test_thresholds_follow_the_labels_where_these_are_enough_to_tell(tmp_path):
    size = (100, 100)
    key = 'train_dataloader.dataset.datasets.1.thresholds_from'
    boxes = [[*squares(1, 30, size), *squares(1, 20, size, label=1)]]
    enough = plan_of(tmp_path, [size] * 20, boxes * 20)
    assert enough['transfer'][key] == dict(labeled=str(tmp_path / 'labeled.json'))
    rare = plan_of(tmp_path, [size] * 20, boxes * 19 + [squares(1, 30, size)])
    assert rare['transfer'][key] is None and '19 of nucleus' in why(rare)['pseudo_labels']['why']
    given = plan_of(tmp_path, [size] * 20, boxes * 20, given=dict(score_thr='0.4'))
    assert given['transfer'][key] is None
    assert given['transfer']['train_dataloader.dataset.datasets.1.score_thr'] == 0.4


def test_the_table_is_stored_with_the_numbers_that_it_comes_from(tmp_path):
    plan = plan_of(tmp_path, [(480, 640)] * 3, [squares(2, 60, (480, 640))] * 3)
    stored = json.loads((tmp_path / 'plan/plan.json').read_text())
    assert stored['facts']['short_side'] == 480 and stored['decisions'] == plan['decisions']
    lines = Path(plan['table']).read_text().splitlines()
    assert lines[0].split() == ['setting', 'value', 'why']
    assert len(lines) == 1 + len(plan['decisions'])
    assert all(row['why'] for row in plan['decisions'])


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(teacher='sam'), 'variables.teacher is sam; did you mean sam3'),
        (dict(student='cast_light'), 'variables.student is cast_light; did you mean cast_lite'),
        (dict(gpu='32'), 'variables.gpu is 32; there are 16, 24, 80'),
        (
            dict(prompts=dict(cell='Nucleus')),
            "'cell' and 'nucleus' are both asked for by 'nucleus'",
        ),
        (dict(prompts=dict(cell='St. X')), "'St. X' cannot be prompted"),
        (dict(teacher_options={'model.lora.rnk': 4}), 'lora has no rnk; did you mean rank'),
        (dict(given=dict(window=-1)), 'variables.window is a whole number from 0'),
        (dict(given=dict(score_thr='nan')), 'variables.score_thr is a number from 0'),
        (dict(given=dict(score_thr=1.5)), 'variables.score_thr is 1.5: scores are below 1'),
        (dict(given=dict(student_iterations='1.5')), 'is a whole number from 1'),
    ],
)
def test_a_value_that_is_none_is_refused(options, message):
    with pytest.raises(CASTError, match=message):
        any_plan(**options)


def test_a_persons_options_win_over_the_plans_dotted_or_nested(tmp_path):
    """Those of the pixel loss are not for the zero-shot test, which has none."""
    given = {
        'model.pixel_contrast.loss_weight': 0.2,
        'model': dict(pixel_contrast=dict(pool=1), detector=dict(num_pixel_queries=7)),
        'train_cfg.max_iters': 11,
    }
    plan = any_plan(teacher_options=given)
    network = nested(plan['adapt_labeled'])['model']
    assert network['pixel_contrast'] == dict(loss_weight=0.2, pool=1)
    assert network['detector']['num_pixel_queries'] == 7
    assert network['detector']['classes'] == ['cell', 'nucleus']
    assert nested(plan['adapt_labeled'])['train_cfg']['max_iters'] == 11
    assert nested(plan['zero_shot'])['model']['pixel_contrast'] is None
    assert plan['transfer']['train_cfg.max_iters'] == 10000
    row = why(plan)['teacher_options.model.pixel_contrast.loss_weight']
    assert row['value'] == '0.2' and row['why'] == 'given by you'


@pytest.mark.parametrize(
    'pipeline, name, value, message',
    [
        ('cast_custom_foundation.py', 'teacher', 'sam33', 'is sam33; there are grounded_sam, sam3'),
        ('cast_custom_foundation.py', 'student', 'cast_ligt', 'cast_ligt; there are .* cast_lite'),
        (
            'cast_custom.py',
            'student',
            'custom/custom_studnt',
            'is custom/custom_studnt_.*; did you mean custom_student_',
        ),
    ],
)
def test_a_network_that_has_no_configs_is_refused_with_those_there_are(
    pipeline, name, value, message
):
    with pytest.raises(CASTError, match=message):
        Plan(pipeline, cfg_options={f'variables.{name}': Typed(value)})


class Finished:
    """A pipeline's state after its data and its plan."""

    def __init__(self, **options):
        data = dict.fromkeys(('labeled', 'val', 'unlabeled', 'val_images', 'train_images'), 'x')
        self.left = dict(
            data=dict(data, unlabeled_images='x', classes=['cell', 'nucleus']),
            plan=any_plan(**options),
            start=dict(teacher='teacher.pth', student=None),
        )

    def finished(self, step):
        return step in self.left

    def outputs(self, step):
        return json.loads(json.dumps(self.left[step]))  # as they come back from the state's file


@pytest.mark.parametrize('student', STUDENTS)
@pytest.mark.parametrize('teacher', TEACHERS)
def test_step_configs_know_all_options_and_get_the_sizes(tmp_path, teacher, student):
    names = {'variables.teacher': Typed(teacher), 'variables.student': Typed(student)}
    plan = Plan('cast_custom_foundation.py', cfg_options=names)
    state = Finished(teacher=teacher, student=student, given=dict(window=224, teacher_window=320))
    plan.check_outputs(plan.definitions, state)
    plan.definitions['transfer']['pseudo_labels'] = 'x'
    for name, number in (('zero_shot', 1), ('transfer', 2)):
        config = plan.step(name, tmp_path, state).config
        resize = next(step for step in config.test_dataloader.dataset.pipeline if 'scale' in step)
        chosen = state.left['plan'][f'{"teacher" if number == 1 else "student"}_transforms']
        assert resize.scale == tuple(chosen['Resize']['scale'])  # a tuple, as transforms want it
    assert config.train_cfg.max_iters == state.left['plan']['transfer']['train_cfg.max_iters']
    assert plan.iterations('transfer', state) == config.train_cfg.max_iters
    assert config.model.detector.test_cfg.windows['size'] == 224
    crops = [
        step.crop_size
        for part in config.train_dataloader.dataset.datasets
        for step in part.pipeline
        if step.type == 'RandomCrop'
    ]
    assert crops == [(224, 224)] * 2


@pytest.mark.parametrize(
    'key, value, message',
    [
        # The teacher's is 2 without it.
        ('train_dataloader.batch_size', 2, 'set variables.teacher_b.* or variables.student_batch_'),
        ('train_cfg.max_iters', 7, 'decides it for adapt_labeled, .* set variables.teacher_iterat'),
        ('model.detector.test_cfg.windows.size', 98, 'for transfer, refine; set variables.student'),
        (
            'optim_wrapper.accumulative_counts',
            1,
            'set .* variables.teacher_options.optim_wrapper.a',
        ),
        ('model.detector.panoptic_head.num_queries', 9, 'transfer, refine; set variables.num_quer'),
        ('train_dataloader.num_workers', 0, None),
        ('default_hooks.ema.type', 'EMAHook', None),
        ('optim_wrapper.optimizer.lr', 0.1, None),
    ],
)
def test_options_for_all_steps_that_the_plan_decides_are_refused(key, value, message):
    """Its values would win, silently."""
    plan = Plan('cast_custom_foundation.py', cfg_options={f'step_options.{key}': value})
    state = Finished(presets=dict(grounded_sam={24: {'train_dataloader.batch_size': 2}}))
    if message is None:
        plan.check_outputs(plan.definitions, state)
        return
    with pytest.raises(
        CASTError, match=f'step_options.{key} would do nothing: step plan .*{message}'
    ):
        plan.check_outputs(plan.definitions, state)


def test_a_plan_without_self_training_decides_nothing_about_it():
    """Its table is in the report. The student's labels are made with its options all the same."""
    plans = _, without = [any_plan(self_training=value) for value in (True, False)]
    rows = [why(plan) for plan in plans]
    assert rows[0].keys() - rows[1].keys() == {'self_training_iterations'}
    for key, value in nested(without['adapt_labeled'])['model'].items():
        assert nested(without['adapt_self_training'])['model'][key] == value
    given = dict(self_training_iterations='100')
    assert why(any_plan(given=given))['self_training_iterations']['value'] == 100
    with pytest.raises(CASTError, match='self_training_iterations would do nothing'):
        any_plan(given=given, self_training=False)
