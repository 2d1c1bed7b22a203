"""Whole runs: what they start from, what they leave, and which of them would never end."""

import gc
import math
import multiprocessing
from pathlib import Path

import pytest
import torch
import toy_run
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from torch import distributed as dist
from torch import nn
from torch.utils.data import Dataset
from toy_run import config

from mmcast.errors import CASTError
from mmcast.models.weights.reading import read_state_dict
from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model, tiny_cast_config
from mmcast.training.runner import test_run as check_run  # pytest would take it for a test
from mmcast.training.runner import train_run


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


@DATASETS.register_module()
class SampleImages(Dataset):
    """Two random images with their annotations."""

    def __init__(self):
        images, samples = make_samples([2, 1], ['labeled', 'labeled'])
        self.items = list(zip((images * 50 + 120).clamp(0, 255).byte(), samples))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        image, sample = self.items[index]
        return dict(inputs=image, data_samples=sample.clone())


# ---- moving averages

EMA = dict(custom_hooks=[dict(type='EMAHook', momentum=0.25)])


@pytest.fixture
def start(tmp_path):
    """Start weights as the shipped ones: a bare dict of tensors."""
    path = tmp_path / 'start.pth'
    torch.manual_seed(5)
    torch.save(toy_run.ToyModel().state_dict(), path)
    return str(path)


def weights(path):
    return read_state_dict(path)['layer.weight']


def averages(folder, start, iterations):
    """The weights at the end, and MMEngine's average: the first, then 3/4 of the average and 1/4 of
    the next, of a run without averages.
    """
    train_run(
        config(folder, iterations, load_from=start, default_hooks=dict(checkpoint=dict(interval=1)))
    )
    every = [weights(folder / f'iter_{number}.pth') for number in range(1, iterations + 1)]
    average = every[0]
    for latest in every[1:]:
        average = 0.75 * average + 0.25 * latest
    return every[-1], average


def test_ema_of_bare_start_weights_is_what_is_validated_saved_and_tested(
    start, tmp_path, monkeypatch
):
    last, expected = averages(tmp_path / 'plain', start, 3)
    seen = []
    monkeypatch.setattr(
        'toy_run.ToyMetric.compute_metrics',
        lambda self, results: seen.append(results[0]['weight']) or {'coco/segm_mAP': 0.5},
    )
    result = train_run(config(tmp_path / 'ema', 3, load_from=start, **EMA))
    assert not torch.allclose(last, expected)
    torch.testing.assert_close(weights(result.checkpoint), expected)
    check_run(config(tmp_path / 'test'), str(result.checkpoint))
    assert seen == pytest.approx([expected.mean().item()] * 2)


def test_ema_in_a_config_does_not_change_the_test_of_bare_weights(start, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        'toy_run.ToyMetric.compute_metrics',
        lambda self, results: seen.append(results[0]['weight']) or {},
    )
    check_run(config(tmp_path, **EMA), start)
    assert seen == pytest.approx([weights(start).mean().item()])


def test_a_resumed_ema_is_that_of_an_undisturbed_run(start, tmp_path):
    whole = train_run(config(tmp_path / 'whole', load_from=start, **EMA))
    part = train_run(config(tmp_path / 'part', 2, load_from=start, **EMA))
    resumed = train_run(config(tmp_path / 'part', 4, **EMA), part.checkpoint)
    assert resumed.checkpoint.name == 'iter_4.pth'
    torch.testing.assert_close(weights(resumed.checkpoint), weights(whole.checkpoint))
    done = train_run(config(tmp_path / 'part', 4, **EMA), resumed.checkpoint)  # nothing is left
    torch.testing.assert_close(weights(done.checkpoint), weights(whole.checkpoint))


def test_the_next_step_starts_from_an_average_whose_decay_grows(start, tmp_path):
    """mmdet's ExpMomentumEMA, as a default hook that a pipeline adds by one option."""
    hooks = dict(checkpoint=dict(interval=1))
    train_run(config(tmp_path / 'plain', 3, load_from=start, default_hooks=hooks))
    first, *rest = (weights(tmp_path / f'plain/iter_{number}.pth') for number in (1, 2, 3))
    average = first
    for step, latest in enumerate(rest, 1):
        share = 0.9 * math.exp(-(1 + step) / 5) + 0.1
        average = (1 - share) * average + share * latest
    ema = dict(ema=dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.1, gamma=5))
    result = train_run(config(tmp_path / 'ema', 3, load_from=start, default_hooks=ema))
    torch.testing.assert_close(weights(result.checkpoint), average)
    still = dict(optim_wrapper=dict(optimizer=dict(lr=0.0)))
    then = train_run(config(tmp_path / 'next', 1, load_from=str(result.checkpoint), **still))
    torch.testing.assert_close(weights(then.checkpoint), average)


def test_ema_of_a_cast_detector_starts_at_its_weights_and_moves_its_student(tmp_path):
    model = tiny_cast_config(teacher=True)
    start = {'model': build_model(model).state_dict()}
    torch.save(start['model'], tmp_path / 'start.pth')
    data = dict(dataset=dict(type='SampleImages', _delete_=True))
    changes = dict(
        model=model | dict(_delete_=True),
        train_dataloader=data,
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3, _delete_=True)),
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
        load_from=str(tmp_path / 'start.pth'),
    )
    one, two = (
        read_state_dict(
            train_run(config(tmp_path / f'{n}{bool(ema)}', n, **changes, **ema)).checkpoint
        )
        for n, ema in ((1, EMA), (2, {}))
    )
    both = read_state_dict(train_run(config(tmp_path / 'both', 2, **changes, **EMA)).checkpoint)
    assert one.keys() == both.keys() == start['model'].keys()
    for key, value in both.items():
        torch.testing.assert_close(value, 0.75 * one[key] + 0.25 * two[key], msg=key)
        moved = not torch.equal(value, start['model'][key])
        assert moved or not key.startswith('detector.panoptic_head.cls_embed'), key
        assert not moved or not key.startswith('teacher.'), key


# ---- start weights


def test_named_new_parameters_start_at_random_though_their_shape_fits(start, tmp_path):
    loaded, drawn = (
        train_run(
            config(
                tmp_path / str(number),
                1,
                load_from=start,
                new_parameters=names,
                optim_wrapper=dict(optimizer=dict(lr=0.0)),
            )
        )
        for number, names in enumerate(([], ['layer.']))
    )
    assert torch.equal(weights(loaded.checkpoint), torch.load(start)['layer.weight'])
    assert not torch.equal(weights(drawn.checkpoint), torch.load(start)['layer.weight'])


def with_teacher(folder, hook, **changes):
    """A run with a second network like the student, which starts from ``start.pth``."""
    return config(
        folder / 'run',
        1,
        model=tiny_cast_config(semi_weight=1.0) | dict(_delete_=True, teacher='detector'),
        train_dataloader=dict(dataset=dict(type='SampleImages', _delete_=True)),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=0.0, weight_decay=0.0, _delete_=True),
            paramwise_cfg=dict(norm_decay_mult=0.0),
        ),
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
        load_from=str(folder / 'start.pth'),
        custom_hooks=[hook],
        **changes,
    )


def test_a_frozen_teacher_that_a_plain_students_file_leaves_random_is_refused(tmp_path):
    student = build_model(tiny_cast_config().detector, seed=4)
    torch.save(student.state_dict(), tmp_path / 'start.pth')
    with pytest.raises(CASTError, match='parameters of the teacher.*random: set checkpoint='):
        train_run(with_teacher(tmp_path, dict(type='FrozenTeacherHook')))
    hook = dict(type='FrozenTeacherHook', checkpoint=str(tmp_path / 'start.pth'))
    trained = read_state_dict(train_run(with_teacher(tmp_path, hook)).checkpoint)
    assert all(
        value.equal(trained[f'teacher.{key}']) for key, value in student.state_dict().items()
    )


def test_a_run_with_an_online_teacher_starts_from_a_plain_student_and_lists_no_parameter(
    tmp_path, capfd
):
    """The teacher is in no start weights, and has no optimizer: both as it should be."""
    student = build_model(tiny_cast_config().detector, seed=4)
    torch.save(student.state_dict(), tmp_path / 'start.pth')
    hook = dict(type='EMATeacherHook', momentum=0.5, hand_over=True)
    run = with_teacher(tmp_path, hook, log_level='INFO')
    trained = read_state_dict(train_run(run).checkpoint)
    for key, value in student.state_dict().items():
        assert torch.equal(trained[f'detector.{key}'], value)
        assert torch.equal(trained[f'teacher.{key}'], value)
    said = capfd.readouterr()
    assert "has the teacher's weights" in said.err + said.out
    assert 'teacher.' not in said.err + said.out


# ---- checkpoints


def test_of_one_kept_checkpoint_two_are_there_until_the_end(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(
        'mmengine.hooks.CheckpointHook.after_train', lambda self, runner: kept.extend(names())
    )

    def names():
        return sorted(path.name for path in tmp_path.glob('*.pth'))

    hooks = dict(checkpoint=dict(max_keep_ckpts=1, interval=1))
    result = train_run(config(tmp_path, default_hooks=hooks))
    assert kept == ['iter_3.pth', 'iter_4.pth'] and names() == ['iter_4.pth']
    assert result.checkpoint == tmp_path / 'iter_4.pth'


def test_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
    """Cut off while it is written, here by an error, a kill leaves no file of its name."""

    def write_half(content, path, **options):
        Path(path).write_bytes(b'half')
        raise RuntimeError('cut off')

    monkeypatch.setattr('mmengine.runner.runner.save_checkpoint', write_half)
    with pytest.raises(RuntimeError, match='cut off'):
        train_run(config(tmp_path))
    assert [path.name for path in tmp_path.glob('*.pth*')] == ['.iter_4.pth.part']
    monkeypatch.undo()
    train_run(config(tmp_path))
    assert [path.name for path in tmp_path.glob('*.pth*')] == ['iter_4.pth']


def test_a_run_that_saves_no_last_checkpoint_gives_the_newest_and_says_so(tmp_path, capsys):
    hooks = dict(checkpoint=dict(save_last=False, interval=3))
    result = train_run(config(tmp_path, default_hooks=hooks))
    assert result.checkpoint == tmp_path / 'iter_3.pth'
    assert 'no checkpoint of the end was saved' in capsys.readouterr().out


def test_checkpoints_in_a_folder_of_their_own_are_found(tmp_path):
    hooks = dict(checkpoint=dict(out_dir=str(tmp_path / 'large_disk')))
    result = train_run(config(tmp_path / 'run', default_hooks=hooks))
    assert result.checkpoint == tmp_path / 'large_disk/run/iter_4.pth'


def test_names_of_checkpoints_that_resuming_would_not_find_are_refused(tmp_path):
    hooks = dict(checkpoint=dict(filename_tmpl='model_{:06d}.pth'))
    with pytest.raises(CASTError, match=r"filename_tmpl is 'model_.*leave it out"):
        train_run(config(tmp_path, default_hooks=hooks))


@pytest.mark.parametrize(
    'checkpoint, counts, line, saved',
    [
        (dict(interval=3), 2, '4 iterations in place of 3', ['iter_4', 'iter_8']),
        (dict(interval=4, save_begin=3), 2, '', ['iter_4', 'iter_8']),
        (
            dict(interval=1, by_epoch=True),  # of four iterations
            6,
            '3 epochs in place of 1',
            ['epoch_3', 'epoch_4'],
        ),
    ],
)
def test_a_run_that_accumulates_is_resumed_after_whole_steps(
    checkpoint, counts, line, saved, tmp_path, capsys
):
    """A checkpoint between two steps has lost the gradients so far."""

    def train(name, **more):
        by_epoch = checkpoint.get('by_epoch', False)
        cfg = config(
            tmp_path / name,
            iterations=8,
            default_hooks=dict(checkpoint=dict(checkpoint, max_keep_ckpts=-1)),
            optim_wrapper=dict(accumulative_counts=counts),
        )
        if by_epoch:
            cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4)
            cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=False)
        return train_run(cfg, **more)

    whole = train('whole').checkpoint
    assert line in capsys.readouterr().out
    paths = sorted(whole.parent.glob('*_*.pth'))
    assert [path.stem for path in paths] == saved
    resumed = train('resumed', resume_from=paths[0]).checkpoint
    first, second = (read_state_dict(path) for path in (whole, resumed))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_log_level_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(CASTError, match='log_level ERRO is none; did you mean ERROR'):
        train_run(config(tmp_path, log_level='ERRO'))


def test_a_run_without_checkpoints_is_refused_with_what_to_set(tmp_path):
    hooks = dict(checkpoint=dict(save_last=False))
    with pytest.raises(CASTError, match=r'holds no checkpoint.*checkpoint\.interval'):
        train_run(config(tmp_path, default_hooks=hooks))


# ---- several processes


class NormAct(nn.BatchNorm2d):
    """As timm's: the activation is in it."""

    def forward(self, maps):
        return super().forward(maps).relu()


@MODELS.register_module()
class NormalisedModel(toy_run.ToyModel):
    def __init__(self):
        super().__init__()
        self.norm = NormAct(4)


@pytest.fixture
def group_of_one():
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_sync_bn_that_would_take_activations_away_is_refused(tmp_path, group_of_one):
    changes = dict(model=dict(type='NormalisedModel'), sync_bn='torch')
    with pytest.raises(
        CASTError, match=r'1 layers, such as norm, whose NormAct .*: leave out sync'
    ):
        train_run(config(tmp_path / 'several', launcher='pytorch', **changes))
    train_run(config(tmp_path / 'one', **changes))  # MMEngine does not look at it


# ---- runs that would never end


@DATASETS.register_module()
class Photos(toy_run.ToyDataset):
    """Seven landscape ones, then a portrait one; as of a folder, nothing lists them."""

    def load_data_list(self):
        heights = [10] * 7 + [30]
        return [
            dict(photo, width=20, height=height)
            for photo, height in zip(super().load_data_list(), heights)
        ]


def grouped(labeled, unlabeled):
    """Batches of one orientation, of photos with these numbers."""
    sources = [
        dict(type='Photos', indices=numbers, serialize_data=False)
        for numbers in (labeled, unlabeled)
    ]
    return dict(dataset=dict(TWO, datasets=sources), sampler=GROUPED)


TWO = dict(
    _delete_=True,
    type='ConcatDataset',
    datasets=[dict(type='ToyDataset'), dict(type='ToyDataset', indices=2)],
)
MIXED = dict(type='ResumableMultiSourceSampler', batch_size=2, _delete_=True)
GROUPED = dict(MIXED, type='ResumableGroupMultiSourceSampler', source_ratio=[1, 1])
EPOCHS = dict(type='EpochBasedTrainLoop', max_epochs=1, _delete_=True)


@pytest.mark.parametrize(
    'changes, message',
    [
        (
            dict(train_cfg=EPOCHS),
            'EpochBasedTrainLoop .* never ends with InfiniteSampler: set .*IterBasedTrainLoop',
        ),
        (
            dict(val_dataloader=dict(sampler=dict(type='InfiniteSampler'))),
            'ValLoop .* val_dataloader, which never ends .* val_dataloader.sampler=.*Default',
        ),
        (
            dict(
                train_cfg=EPOCHS,
                train_dataloader=dict(dataset=TWO, sampler=dict(MIXED, source_ratio=[1, 1])),
            ),
            'never ends with ResumableMultiSourceSampler',
        ),
        (
            dict(train_dataloader=dict(dataset=TWO, sampler=dict(MIXED, source_ratio=[9, 1]))),
            r'batch of 2 with source_ratio=\[9, 1\] no image is of .*datasets\[1\]',
        ),
        (
            dict(
                train_dataloader=dict(
                    dataset=TWO,
                    sampler=dict(type='MultiSourceSampler', batch_size=2, source_ratio=[0, 1]),
                )
            ),
            r'no image is of .*datasets\[0\]',
        ),
        (
            dict(
                train_dataloader=dict(
                    dataset=dict(
                        TWO,
                        datasets=[
                            dict(type='ToyDataset', indices=[], serialize_data=False),
                            TWO['datasets'][0],
                        ],
                    ),
                    sampler=dict(MIXED, source_ratio=[1, 1]),
                )
            ),
            r'datasets\[0\] has no image to train on, and .* takes 1 of it',
        ),
        (
            dict(train_dataloader=grouped([0, 1], [2, 7])),
            r'datasets\[0\] has no portrait image, which another source has 1 of.* MultiSource',
        ),
        (
            dict(train_dataloader=grouped([2, 6, 7], [7])),
            r'datasets\[1\] has no landscape or square image, which another source has 2 of',
        ),
    ],
    ids=str,
)
def test_what_would_never_end_is_refused_before_training(changes, message, tmp_path, monkeypatch):
    monkeypatch.setattr('toy_run.ToyModel.train_step', None)  # training would fail otherwise
    with pytest.raises(CASTError, match=message):
        train_run(config(tmp_path, **changes))


def test_sources_with_the_same_orientations_are_grouped(tmp_path):
    for name, sources in dict(both=([0, 7], [1, 2, 7]), landscape=([0], [1, 2])).items():
        train_run(config(tmp_path / name, train_dataloader=grouped(*sources)))


def test_batches_of_one_source_alone_are_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr('toy_run.ToyModel.train_step', None)  # training would fail otherwise
    sampler = dict(MIXED, batch_size=4, source_ratio=[1, 1])
    with pytest.raises(CASTError, match='batch_size is 2, that of its sampler 4'):
        train_run(config(tmp_path, train_dataloader=dict(dataset=TWO, sampler=sampler)))


@DATASETS.register_module()
class PseudoLabeled(toy_run.ToyDataset):
    def get_data_info(self, index):
        return dict(super().get_data_info(index), source='pseudo')


@pytest.mark.parametrize('batch, weights', [(2, (1.0, 1.0)), (6, (3.0, 1.5))])
def test_labels_weigh_more_where_only_some_accumulated_batches_have_them(
    batch, weights, tmp_path, monkeypatch, capsys
):
    found = []

    def step(model, data, optim_wrapper):
        found.append(model.label_weights)
        return dict(loss=torch.zeros(()))

    monkeypatch.setattr('toy_run.ToyModel.label_weights', (1.0, 1.0), raising=False)
    monkeypatch.setattr('toy_run.ToyModel.train_step', step)
    sampler = dict(MIXED, batch_size=batch, source_ratio=[1, 1 if batch == 2 else 2])
    datasets = [dict(type='ToyDataset'), dict(type='PseudoLabeled')]
    changes = dict(train_dataloader=dict(dataset=dict(TWO, datasets=datasets), sampler=sampler))
    train_run(config(tmp_path, optim_wrapper=dict(accumulative_counts=batch // 2), **changes))
    assert set(found) == {weights}
    said = 'L_sup is multiplied by 3 and L_semi by 1.5: of the batches of 2, 33% have labeled'
    assert (said in capsys.readouterr().out) == (batch == 6)


def test_a_test_that_would_never_end_is_refused(start, tmp_path):
    cfg = config(tmp_path, test_dataloader=dict(sampler=dict(type='InfiniteSampler')))
    with pytest.raises(CASTError, match='TestLoop goes through all of test_dataloader'):
        check_run(cfg, start)


def test_processes_that_load_images_end_with_the_run(start, tmp_path):
    """Not when the cycles of the Runner are found, each of them five seconds later."""
    loading = dict(num_workers=1, persistent_workers=True)
    cfg = config(tmp_path / 'run', iterations=2)
    cfg.merge_from_dict(dict(train_dataloader=loading, test_dataloader=loading, load_from=start))
    gc.disable()
    try:
        train_run(cfg)
        assert not multiprocessing.active_children()
        check_run(cfg, start)
        assert not multiprocessing.active_children()
    finally:
        gc.enable()


def test_a_test_leaves_the_config_of_the_training_as_it_was(tmp_path):
    """Labels and tests to come read it; options of one test are not theirs."""
    config(tmp_path / 'run', iterations=2).dump(tmp_path / 'toy.py')
    trained = train_run(Config.fromfile(tmp_path / 'toy.py'))
    own = tmp_path / 'run' / 'toy.py'
    before = own.read_text()
    cfg = Config.fromfile(own)
    cfg.test_dataloader.batch_size += 1
    check_run(cfg, str(trained.checkpoint))
    assert own.read_text() == before
    (of_test,) = (tmp_path / 'run').glob('*/toy.py')
    assert Config.fromfile(of_test).test_dataloader.batch_size == cfg.test_dataloader.batch_size
