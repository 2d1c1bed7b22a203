"""Checkpoints of LoRA adapters: their size, where their base weights are, how runs resume and go on
from them.
"""

import copy
import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS
from tiny_teacher import teacher_config
from torch.utils.data import Dataset
from toy_run import config

from mmcast.adapter_files import is_adapter
from mmcast.checkpoints import load_plain
from mmcast.cli.mmdet import main
from mmcast.errors import CASTError
from mmcast.files import sha256_of_file
from mmcast.models.weights.loading import load_weights
from mmcast.models.weights.reading import read_state_dict
from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model, tiny_cast_config
from mmcast.training.checkpoints import latest_intact_checkpoint
from mmcast.training.hooks.online_teacher import FrozenTeacherHook
from mmcast.training.runner import train_run


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


@DATASETS.register_module()
class Rectangles(Dataset):
    """Four random images with rectangles."""

    def __init__(self, size=(64, 64)):
        images, samples = make_samples([2, 1, 3, 1], ['labeled'] * 4, size=size)
        self.items = list(zip((images * 50 + 120).clamp(0, 255).byte(), samples))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        image, sample = self.items[index]
        return dict(inputs=image, data_samples=sample.clone())


@HOOKS.register_module()
class ReplaceBase(Hook):
    def __init__(self, path):
        self.path = Path(path)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.path.write_bytes(self.path.read_bytes()[:-1] + b'x')


@pytest.fixture(scope='module')
def student():
    return tiny_cast_config(pixel_weight=0.1)


@pytest.fixture(scope='module')
def base(student, tmp_path_factory):
    """Weights to start from: the network's alone, as the pipelines' first step writes them."""
    path = tmp_path_factory.mktemp('base') / 'start.pth'
    torch.save(build_model(student).detector.state_dict(), path)
    return path


def run(folder, model, iterations=2, resume_from=None, size=(64, 64), lr=1e-3, **changes):
    given = dict(
        model=ConfigDict(model, _delete_=True),
        train_dataloader=dict(dataset=dict(type='Rectangles', size=size, _delete_=True)),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=lr, weight_decay=0.0, _delete_=True)),
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
    )
    return train_run(config(folder, iterations, **given, **changes), resume_from).checkpoint


def with_lora(model, **lora):
    return dict(model, lora=dict(rank=2, learn_in_full=['panoptic_head.cls_embed'], **lora))


# ---- what is in them


def test_a_checkpoint_of_the_teacher_with_the_optimizer_has_under_2_percent(tmp_path):
    """Of a tiny one that is wide enough: an adapter of rank 1 has 0.4 % of a 512 x 512 layer."""
    detector = teacher_config(tmp_path)
    detector.sam2.encoder.hidden_size = 128  # 1024 in the last stage
    model = ConfigDict(type='CASTDetector', detector=detector)
    start = build_model(copy.deepcopy(model))
    torch.save(start.state_dict(), tmp_path / 'start.pth')
    model.lora = dict(rank=1)
    changes = dict(load_from=str(tmp_path / 'start.pth'), size=(64, 96))
    path = run(tmp_path / 'run', model, iterations=1, **changes)
    assert path.stat().st_size <= 0.02 * (tmp_path / 'start.pth').stat().st_size
    content = load_plain(path)
    assert {'optimizer', 'message_hub', 'meta'} <= content.keys()
    assert sum(not is_adapter(name) for name in content['state_dict']) == 3  # biases of the scores
    assert content['lora']['base']['sha256'] == sha256_of_file(tmp_path / 'start.pth')
    assert read_state_dict(path).keys() == start.state_dict().keys()


def test_only_adapters_and_what_learns_in_full_are_saved(student, base, tmp_path):
    path = run(tmp_path / 'run', with_lora(student), load_from=str(base))
    saved = load_plain(path)['state_dict']
    rest = {name for name in saved if not is_adapter(name)}
    assert {name for name in rest if name.startswith('detector.')} == {
        f'detector.panoptic_head.cls_embed.{name}' for name in ('weight', 'bias')
    }
    assert rest - {name for name in rest if name.startswith('detector.')} == {
        name for name in build_model(student).state_dict() if name.startswith('pixel_contrast.')
    }
    whole, start = read_state_dict(path), read_state_dict(base)
    adapted = {name.partition('.lora_')[0] + '.weight' for name in saved if is_adapter(name)}
    for name, value in start.items():
        learned = f'detector.{name}' in adapted | rest
        assert whole[f'detector.{name}'].equal(value) is not learned, name


def test_without_load_from_the_whole_model_is_saved(student, tmp_path, capsys):
    path = run(tmp_path / 'run', with_lora(student))
    assert 'saved with the whole model, without load_from' in capsys.readouterr().out
    assert load_plain(path)['lora']['base'] is None
    assert read_state_dict(path).keys() == build_model(student).state_dict().keys()


# ---- how runs go on


@pytest.mark.parametrize('averaged', [None, 'EMAHook', 'EMATeacherHook'])
def test_a_resumed_run_ends_with_the_same_bits(student, base, tmp_path, averaged):
    changes = dict(load_from=str(base))
    if averaged:
        changes['custom_hooks'] = [dict(type=averaged, momentum=0.25)]
    model = with_lora(tiny_cast_config(teacher=True) if averaged == 'EMATeacherHook' else student)
    changes['default_hooks'] = dict(checkpoint=dict(interval=2))
    whole = run(tmp_path / 'whole', model, 4, **changes)
    (tmp_path / 'part').mkdir()
    part = shutil.copy(whole.with_name('iter_2.pth'), tmp_path / 'part')
    resumed = run(tmp_path / 'part', model, 4, resume_from=part, **changes)
    assert resumed.name == 'iter_4.pth'
    assert resumed.stat().st_size == pytest.approx(whole.stat().st_size, rel=0.1)
    assert resumed.stat().st_size < base.stat().st_size / 2
    for key in ('state_dict', 'ema_state_dict'):
        one, other = (load_plain(path).get(key, {}) for path in (whole, resumed))
        assert one.keys() == other.keys()
        assert all(value.equal(other[name]) for name, value in one.items())


def test_the_next_step_goes_on_with_the_adapters_and_their_base(student, base, tmp_path):
    first = run(tmp_path / 'first', with_lora(student), load_from=str(base))
    path = run(tmp_path / 'second', with_lora(student), 1, load_from=str(first), lr=0.0)
    second = load_plain(path)
    assert second['lora']['base']['sha256'] == sha256_of_file(base)
    for name, value in load_plain(first)['state_dict'].items():
        assert value.equal(second['state_dict'][name]), name


def test_the_next_step_may_train_all_weights(student, base, tmp_path):
    first = run(tmp_path / 'first', with_lora(student), load_from=str(base))
    second = run(tmp_path / 'second', student, 1, load_from=str(first), lr=0.0)
    merged = read_state_dict(first)
    assert 'lora' not in load_plain(second)
    assert all(value.equal(merged[name]) for name, value in read_state_dict(second).items())


@pytest.mark.parametrize(
    'lora, message',
    [
        (dict(rank=3), r'lora_A.* is \(2, 16\), needs \(3, 16\)'),
        (dict(alpha=1.0), r'alpha / rank is 2.0, needs 0.5'),
        (dict(layers=['backbone.layers.0']), 'unexpected'),
    ],
    ids=str,
)
def test_other_adapters_are_refused(student, base, tmp_path, lora, message):
    first = run(tmp_path / 'first', with_lora(student), 1, load_from=str(base))
    other = with_lora(student)
    other['lora'].update(lora)
    with pytest.raises(CASTError, match=f'not those of model.lora .*{message}.*give the same lora'):
        run(tmp_path / 'second', other, 1, load_from=str(first))


def test_a_frozen_online_teacher_gets_them_merged(student, base, tmp_path):
    path = run(tmp_path / 'first', with_lora(student), load_from=str(base))
    merged = {
        name.removeprefix('detector.'): value
        for name, value in read_state_dict(path).items()
        if name.startswith('detector.')
    }
    for lora in (None, dict(rank=1)):
        model = build_model(dict(tiny_cast_config(teacher=True), lora=lora))
        hook = FrozenTeacherHook(str(path))
        hook.before_train(type('OfARun', (), dict(model=model)))
        found = {
            name.replace('.base_layer.', '.'): value
            for name, value in model.teacher.state_dict().items()
        }
        assert all(value.equal(found[name]) for name, value in merged.items())


def test_mmdets_own_training_saves_adapters_too(student, base, tmp_path, capsys):
    """And its own test, as all that only predicts, takes them merged."""
    data = dict(dataset=dict(type='Rectangles', _delete_=True))
    changes = dict(model=ConfigDict(student, _delete_=True), train_dataloader=data)
    changes |= dict(val_cfg=None, val_dataloader=None, val_evaluator=None, load_from=str(base))
    config(tmp_path / 'run', 1, **changes).dump(tmp_path / 'config.py')
    options = ['--cfg-options', 'model.lora.rank=2']
    main(['train', str(tmp_path / 'config.py'), *options])
    content = load_plain(tmp_path / 'run/iter_1.pth')
    assert content['lora']['base']['sha256'] == sha256_of_file(base)
    assert any(map(is_adapter, content['state_dict']))
    capsys.readouterr()


# ---- two processes


def distributed_run(rank, folder, base):
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank))
    model = with_lora(tiny_cast_config(pixel_weight=0.1))
    changes = dict(load_from=base, launcher='pytorch', env_cfg=dict(dist_cfg=dict(backend='gloo')))
    path = run(Path(folder, 'run'), model, 2, **changes)
    torch.save(read_state_dict(path), f'{folder}/rank{rank}.pth')
    dist.destroy_process_group()


def test_two_processes_train_the_same_adapters_and_one_saves_them(base, tmp_path):
    mp.spawn(distributed_run, (str(tmp_path), str(base)), nprocs=2)
    content = load_plain(tmp_path / 'run/iter_2.pth')
    assert content['lora']['base']['sha256'] == sha256_of_file(base)
    assert sum(map(is_adapter, content['state_dict'])) > 20
    ours, theirs = (torch.load(tmp_path / f'rank{rank}.pth') for rank in range(2))
    assert all(value.equal(theirs[name]) for name, value in ours.items())


# ---- where the base weights are


@pytest.fixture
def moved(student, base, tmp_path):
    """A checkpoint of adapters, and its base weights beside the run's folder."""
    start = tmp_path / 'all/start/teacher.pth'
    start.parent.mkdir(parents=True)
    shutil.copy(base, start)
    return run(tmp_path / 'all/run', with_lora(student), 1, load_from=str(start)), start


def loads(path, student):
    model = build_model(student, seed=8)
    load_weights(model, str(path))
    return model


def test_both_can_be_moved_together(moved, student, tmp_path):
    expected = read_state_dict(moved[0])
    (tmp_path / 'all').rename(tmp_path / 'elsewhere')
    path = tmp_path / 'elsewhere/run' / moved[0].name
    model = loads(path, student)
    assert all(value.equal(expected[name]) for name, value in model.state_dict().items())


def test_missing_base_weights_are_an_error_until_it_is_said_where_they_are(
    moved, student, tmp_path, monkeypatch
):
    path, start = moved
    (tmp_path / 'disk').mkdir()
    start.rename(tmp_path / 'disk/teacher.pth')
    with pytest.raises(CASTError) as error:
        loads(path, student)
    for part in (str(path), 'teacher.pth (SHA-256', f'{start} is not there', '--base-weights PATH'):
        assert part in str(error.value)
    assert '\n' not in str(error.value)
    for given in (tmp_path / 'disk', tmp_path / 'disk/teacher.pth'):
        monkeypatch.setenv('MMCAST_BASE_WEIGHTS', str(given))
        loads(path, student)


def test_other_base_weights_are_an_error(moved, student):
    path, start = moved
    torch.save(build_model(student, seed=1).detector.state_dict(), start)
    with pytest.raises(CASTError, match=f'{start} has another content'):
        loads(path, student)


def test_an_interrupted_run_without_its_base_is_an_error_and_no_new_start(moved, student):
    path, start = moved
    start.unlink()
    assert latest_intact_checkpoint(path.parent) == path
    with pytest.raises(CASTError, match='are not found'):
        run(path.parent, with_lora(student), 2, resume_from=path)


def test_base_weights_that_are_replaced_during_a_run_stop_it(student, base, tmp_path):
    """What they were is lost, so adapters alone would be worth nothing."""
    start = Path(shutil.copy(base, tmp_path / 'start.pth'))
    replaced = dict(type='ReplaceBase', path=str(start))
    with pytest.raises(CASTError, match=f'only adapters are saved.* {start} has another content'):
        run(tmp_path / 'run', with_lora(student), load_from=str(start), custom_hooks=[replaced])
    assert not list((tmp_path / 'run').glob('*.pth'))
