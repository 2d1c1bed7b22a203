"""The teacher hooks in real MMEngine runs: the frozen one does not move, the EMA follows the closed
form.
"""

import logging

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from sample_loader import loader_of
from torch import nn

from mmcast.errors import CASTError
from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model, tiny_cast_config, tiny_student_config
from mmcast.training.hooks.online_teacher import EMATeacherHook, FrozenTeacherHook, state_hash


def run(model, hooks, folder, steps, save_every=None, **kwargs):
    """Train on random images, one labeled and one unlabeled, with a learning rate that moves every
    weight.
    """
    images, samples = make_samples([2, 0], ['labeled', 'unlabeled'])
    loader = loader_of(images, samples, steps)
    checkpoint = (
        dict(type='CheckpointHook', interval=save_every, by_epoch=False) if save_every else None
    )
    logging.disable(logging.INFO)
    try:
        runner = Runner(
            model,
            str(folder),
            train_dataloader=loader,
            custom_hooks=hooks,
            default_scope='mmcast',
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=steps),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
            default_hooks=dict(checkpoint=checkpoint, logger=None),
            experiment_name=folder.name,
            **kwargs,
        )
        runner.train()
    finally:
        logging.disable(logging.NOTSET)
    return runner


def cast_with_teacher():
    cast = build_model(
        tiny_cast_config(semi_weight=1.0, pixel_weight=0.1, teacher=True, score_thr=0.0)
    )
    cast._is_init = True  # the Runner shall not draw the weights anew
    return cast


def copy_state(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Touch(Hook):
    """Looks at the teacher after every step, adds to it if told to, and remembers the student."""

    priority = 'VERY_HIGH'

    def __init__(self, model, add_to_teacher=0.0):
        self.model, self.add_to_teacher, self.students = model, add_to_teacher, []

    @torch.no_grad()
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        assert not any(module.training for module in self.model.teacher.modules())
        assert all(p.grad is None and not p.requires_grad for p in self.model.teacher.parameters())
        next(self.model.teacher.parameters()).add_(self.add_to_teacher)
        self.students.append(copy_state(self.model.detector))


# Frozen


def test_frozen_teacher_is_bit_identical_after_20_steps(tmp_path):
    cast = cast_with_teacher()
    teacher, student = copy_state(cast.teacher), copy_state(cast.detector)
    touch = Touch(cast)
    run(cast, [touch, FrozenTeacherHook()], tmp_path, steps=20)
    assert len(touch.students) == 20
    assert equal(copy_state(cast.teacher), teacher)
    assert all(
        not torch.equal(value, student[key]) for key, value in cast.detector.state_dict().items()
    )


def test_a_change_of_the_frozen_teacher_is_reported(tmp_path):
    cast = cast_with_teacher()
    with pytest.raises(RuntimeError, match='the teacher changed during training'):
        run(cast, [Touch(cast, add_to_teacher=1e-6), FrozenTeacherHook()], tmp_path, steps=2)


def test_fingerprint_sees_one_bit_of_a_parameter_and_of_a_buffer():
    module = nn.BatchNorm1d(3)
    hashes = {state_hash(module)}
    with torch.no_grad():
        module.weight[1] = torch.nextafter(module.weight[1], torch.tensor(2.0))
    hashes.add(state_hash(module))
    module.num_batches_tracked += 1
    hashes.add(state_hash(module))
    assert len(hashes) == 3


@pytest.mark.parametrize(
    'config',
    [tiny_student_config(), tiny_cast_config(pixel_weight=0.1)],
    ids=lambda config: config.type,
)
def test_frozen_teacher_is_the_checkpoints_student(tmp_path, config):
    source = build_model(config, seed=5)
    torch.save(dict(state_dict=source.state_dict(), meta={}), tmp_path / 'teacher.pth')
    cast = cast_with_teacher()
    run(cast, [FrozenTeacherHook(str(tmp_path / 'teacher.pth'))], tmp_path, steps=1)
    assert equal(copy_state(cast.teacher), copy_state(getattr(source, 'detector', source)))


BIAS = 'panoptic_head.cls_embed.bias'


@pytest.mark.parametrize(
    'remove, add, message',
    [
        ([BIAS], {}, f'missing: {BIAS}'),
        ([], dict(extra=torch.zeros(1)), 'unexpected: extra'),
        ([], {BIAS: torch.zeros(2)}, rf'wrong shape: {BIAS} is \(2,\), needs \(4,\)'),
    ],
    ids=['missing', 'unexpected', 'shape'],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(tmp_path, remove, add, message):
    state = build_model(tiny_student_config()).state_dict()
    state = {key: value for key, value in state.items() if key not in remove} | add
    torch.save(state, tmp_path / 'teacher.pth')
    with pytest.raises(
        CASTError, match=f'teacher.pth does not fit the teacher CASTMask2Former: {message}'
    ):
        run(
            cast_with_teacher(),
            [FrozenTeacherHook(str(tmp_path / 'teacher.pth'))],
            tmp_path,
            steps=1,
        )


def test_a_missing_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(CASTError, match='nowhere.pth not found'):
        run(
            cast_with_teacher(),
            [FrozenTeacherHook(str(tmp_path / 'nowhere.pth'))],
            tmp_path,
            steps=1,
        )


def cast_without_weights(init_cfg=None):
    """As a config's, whose weights MMEngine draws; the teacher's may come from files."""
    config = tiny_cast_config(semi_weight=1.0, pixel_weight=0.1, teacher=True)
    for part, value in (init_cfg or {}).items():
        getattr(config.teacher, part, config.teacher).update(init_cfg=value)
    return build_model(config)


def save(model, path):
    torch.save(model.state_dict(), path)
    return str(path)


def test_a_frozen_teacher_whose_weights_are_in_no_file_is_refused(tmp_path):
    plain = save(build_model(tiny_student_config(), seed=5), tmp_path / 'plain.pth')
    for number, start in enumerate((None, plain)):
        with pytest.raises(CASTError, match=r'such as teacher\.backbone.* random: set checkpoint='):
            folder = tmp_path / str(number)
            run(cast_without_weights(), [FrozenTeacherHook()], folder, steps=1, load_from=start)


def test_one_of_whose_weights_a_part_is_in_a_file_is_refused(tmp_path):
    """A public encoder's, say."""
    encoder = save(build_model(tiny_student_config(), seed=5).backbone, tmp_path / 'encoder.pth')
    cast = cast_without_weights(dict(backbone=dict(type='Pretrained', checkpoint=encoder)))
    with pytest.raises(CASTError, match=r'such as teacher\.(?!backbone).* random: set checkpoint='):
        run(cast, [FrozenTeacherHook()], tmp_path / 'run', steps=1)


@pytest.mark.parametrize('source', ['load_from', 'resume', 'init_cfg'])
def test_a_frozen_teacher_may_come_from_what_the_run_starts_from(tmp_path, source):
    if source == 'init_cfg':
        expected = build_model(tiny_student_config(), seed=5)
        plain = save(expected, tmp_path / 'plain.pth')
        cast, start = cast_without_weights(dict(all=dict(type='Pretrained', checkpoint=plain))), {}
    else:
        other = cast_with_teacher()
        expected = other.teacher
        run(other, [FrozenTeacherHook()], tmp_path / 'first', steps=1, save_every=1)
        cast = cast_without_weights()
        start = dict(load_from=str(tmp_path / 'first/iter_1.pth'), resume=source == 'resume')
    run(cast, [FrozenTeacherHook()], tmp_path / 'run', steps=2, **start)
    assert equal(copy_state(cast.teacher), copy_state(expected))


# EMA


def test_ema_of_a_run_equals_the_closed_form(tmp_path):
    """t_n = m^n t_0 + (1 - m) sum_i m^(n - i) s_i, for every parameter, in double precision."""
    cast, m, n = cast_with_teacher(), 0.7, 6
    teacher, touch = copy_state(cast.teacher), Touch(cast)
    run(cast, [touch, EMATeacherHook(momentum=m, start_from_student=False)], tmp_path, steps=n)
    for name, value in cast.teacher.named_parameters():
        steps = sum(
            m ** (n - i) * student[name].double() for i, student in enumerate(touch.students, 1)
        )
        expected = m**n * teacher[name].double() + (1 - m) * steps
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


def test_ema_teacher_starts_from_the_student(tmp_path):
    """With a momentum of almost one the teacher stays at the student's first weights."""
    cast = cast_with_teacher()
    student = copy_state(cast.detector)
    run(cast, [EMATeacherHook(momentum=1 - 1e-9)], tmp_path, steps=2)
    for key, value in cast.teacher.state_dict().items():
        torch.testing.assert_close(value, student[key], rtol=0, atol=1e-6)


def test_a_resumed_run_keeps_its_ema_teacher(tmp_path):
    """Resumed in the middle it ends where it would have ended anyway."""
    once, twice = cast_with_teacher(), cast_with_teacher()
    run(once, [EMATeacherHook(momentum=0.5), Seed()], tmp_path / 'once', steps=6, save_every=3)
    run(
        twice,
        [EMATeacherHook(momentum=0.5), Seed()],
        tmp_path / 'twice',
        steps=6,
        resume=True,
        load_from=str(tmp_path / 'once' / 'iter_3.pth'),
    )
    for key, value in once.teacher.state_dict().items():
        torch.testing.assert_close(twice.teacher.state_dict()[key], value)


@pytest.mark.parametrize('resumed_at', [1, 3, 4])
def test_a_run_resumed_in_at_and_after_the_burn_in_ends_bit_for_bit_the_same(tmp_path, resumed_at):
    once, twice = cast_with_teacher(), cast_with_teacher()
    hooks = [EMATeacherHook(momentum=0.5, burn_in=3), Seed()]
    run(once, hooks, tmp_path / 'once', steps=6, save_every=1)
    checkpoint = str(tmp_path / 'once' / f'iter_{resumed_at}.pth')
    run(twice, hooks, tmp_path / 'twice', steps=6, resume=True, load_from=checkpoint)
    assert equal(copy_state(once), copy_state(twice))


def test_after_its_burn_in_the_teacher_is_the_students_average_from_there_on(tmp_path):
    """t_b = s_b, then the closed form; before it nothing is labeled, from it on every image is."""
    cast, m, n, burn_in = cast_with_teacher(), 0.7, 6, 2
    touch = Touch(cast)
    runner = run(cast, [touch, EMATeacherHook(momentum=m, burn_in=burn_in)], tmp_path, steps=n)
    students = touch.students[burn_in - 1 :]  # s_b, s_b+1, ...
    later = n - burn_in
    for name, value in cast.teacher.named_parameters():
        steps = sum(
            m ** (later - i) * student[name].double() for i, student in enumerate(students[1:], 1)
        )
        expected = m**later * students[0][name].double() + (1 - m) * steps
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    counts = runner.message_hub.get_scalar('train/online_images').data[0]
    assert list(counts) == [0, 0, 1, 1, 1, 1]
    assert max(runner.message_hub.get_scalar('train/online_labels').data[0][burn_in:]) > 0


def test_the_last_checkpoints_student_can_be_the_average(tmp_path):
    cast = cast_with_teacher()
    touch = Touch(cast)
    hook = EMATeacherHook(momentum=0.5, hand_over=True)
    run(cast, [touch, hook], tmp_path, steps=3, save_every=2)
    states = {
        name: torch.load(tmp_path / name, weights_only=False)['state_dict']
        for name in ('iter_2.pth', 'iter_3.pth')
    }
    pairs = {
        name: [
            {key: value for key, value in state.items() if key.startswith(part)}
            for part in ('detector.', 'teacher.')
        ]
        for name, state in states.items()
    }
    same = {
        name: all(
            torch.equal(a, b) for a, b in zip(student.values(), teacher.values(), strict=True)
        )
        for name, (student, teacher) in pairs.items()
    }
    assert same == {'iter_2.pth': False, 'iter_3.pth': True}
    assert not equal(copy_state(cast.detector), touch.students[-1])


def test_a_teacher_that_has_not_begun_is_validated_as_the_student(tmp_path):
    cast = cast_with_teacher()
    hook, teachers = EMATeacherHook(momentum=0.9, burn_in=3), []
    touch = Touch(cast)

    class Validate(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            teachers.append(copy_state(cast.teacher))

    run(cast, [touch, hook, Validate()], tmp_path, steps=5)
    follows = [equal(teacher, student) for teacher, student in zip(teachers, touch.students)]
    assert follows == [True, True, True, False, False]


def test_a_teacher_that_has_not_begun_is_saved_as_the_student(tmp_path):
    hook = EMATeacherHook(momentum=0.5, burn_in=3)
    run(cast_with_teacher(), [hook], tmp_path, steps=5, save_every=1)
    follows = []
    for number in range(1, 6):
        path = tmp_path / f'iter_{number}.pth'
        state = torch.load(path, weights_only=False)['state_dict']
        student, teacher = (
            {key.removeprefix(part): state[key] for key in state if key.startswith(part)}
            for part in ('detector.', 'teacher.')
        )
        follows.append(equal(student, teacher))
    assert follows == [True, True, True, False, False]


def test_two_averages_for_one_checkpoint_are_refused(tmp_path):
    hooks = [EMATeacherHook(hand_over=True), EMAHook()]
    with pytest.raises(CASTError, match='hand_over=True .* and EMAHook another'):
        run(cast_with_teacher(), hooks, tmp_path, steps=2)
    run(cast_with_teacher(), [EMATeacherHook(), EMAHook()], tmp_path / 'both', steps=1)


def test_a_burn_in_that_never_ends_is_refused(tmp_path):
    with pytest.raises(CASTError, match='burn_in=2 is not below train_cfg.max_iters=2'):
        run(cast_with_teacher(), [EMATeacherHook(burn_in=2)], tmp_path, steps=2)


class Seed(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        torch.manual_seed(runner.iter)


class Pair(nn.Module):
    """Not a detector: student and teacher that have a buffer."""

    def __init__(self, student, teacher):
        super().__init__()
        self.detector, self.teacher = student, teacher


class FakeRunner:
    iter = 0

    def __init__(self, student, teacher):
        self.model = Pair(student, teacher)


def test_ema_copies_buffers_and_averages_parameters():
    student, teacher = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    hook, runner = (
        EMATeacherHook(momentum=0.9, start_from_student=False),
        FakeRunner(student, teacher),
    )
    hook.before_train(runner)
    with torch.no_grad():
        student.weight.fill_(3.0)
        student.running_mean.fill_(5.0)
        student.num_batches_tracked.fill_(7)
    hook.after_train_iter(runner, 0)
    assert teacher.weight.tolist() == pytest.approx([1.2, 1.2])  # 0.9 * 1 + 0.1 * 3
    assert teacher.running_mean.tolist() == [5.0, 5.0] and teacher.num_batches_tracked == 7
    assert student.weight.tolist() == [3.0, 3.0]


def test_ema_pairs_by_name_not_by_order():
    student = nn.ModuleDict(dict(a=nn.Linear(2, 2), b=nn.Linear(2, 2)))
    teacher = nn.ModuleDict(dict(b=nn.Linear(2, 2), a=nn.Linear(2, 2)))
    hook, runner = (
        EMATeacherHook(momentum=0.0, start_from_student=False),
        FakeRunner(student, teacher),
    )
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    assert torch.equal(teacher['a'].weight, student['a'].weight)
    assert torch.equal(teacher['b'].weight, student['b'].weight)


def test_ema_interval():
    student, teacher = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    hook, runner = EMATeacherHook(momentum=0.5, interval=3), FakeRunner(student, teacher)
    hook.before_train(runner)
    with torch.no_grad():
        student.weight.add_(8.0)
    distances = []
    for runner.iter in range(6):
        hook.after_train_iter(runner, runner.iter)
        distances.append((student.weight - teacher.weight).item())
    assert distances == pytest.approx([8, 8, 4, 4, 4, 2])


@pytest.mark.parametrize(
    'student, teacher, message',
    [
        (nn.Linear(2, 3), nn.Linear(2, 4), 'wrong shape: weight'),
        (nn.Linear(2, 3), nn.Linear(2, 3, bias=False), 'unexpected: bias'),
        (nn.Linear(2, 3, bias=False), nn.Linear(2, 3), 'missing: bias'),
    ],
)
def test_ema_of_two_networks_that_differ_is_refused(student, teacher, message):
    with pytest.raises(CASTError, match=f'teacher and student differ, {message}'):
        EMATeacherHook().before_train(FakeRunner(student, teacher))


@pytest.mark.parametrize('hook', [EMATeacherHook(), FrozenTeacherHook()], ids=['ema', 'frozen'])
def test_a_model_without_teacher_is_refused(hook):
    with pytest.raises(CASTError, match='has no teacher: set teacher='):
        hook.before_train(FakeRunner(nn.Linear(1, 1), None))


@pytest.mark.parametrize('momentum', [-0.1, 1.0])
def test_momentum_out_of_range_is_refused(momentum):
    with pytest.raises(CASTError, match='must lie in'):
        EMATeacherHook(momentum=momentum)
