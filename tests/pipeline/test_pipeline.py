import gc
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
from pathlib import Path

import pytest
import torch
import toy_run
from mmengine.config import Config

from mmcast.cli.train import train
from mmcast.deploy.export import find_source
from mmcast.errors import CASTError
from mmcast.locks import hold_work_dir
from mmcast.pipeline.state import PipelineState
from mmcast.pipeline.templates import resolve
from mmcast.training.batches import divide_batch_size
from mmcast.training.checkpoints import move_elsewhere_aside, resumable_checkpoint

STEP_CONFIG = """
custom_imports = dict(imports=['toy_run'])
default_scope = 'mmengine'
model = dict(type='ToyModel')
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(type='ToyDataset'),
                        sampler=dict(type='InfiniteSampler', shuffle=True))
val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(type='ToyDataset'),
                      sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type='ToyMetric')
test_evaluator = val_evaluator
train_cfg = dict(type='IterBasedTrainLoop', max_iters=6, val_interval=3)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False, max_keep_ckpts=2),
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False))
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = dict(by_epoch=False)
log_level = 'ERROR'
"""

PIPELINE_CONFIG = """
seed = 3
variables = dict(
    data='{work_dir}/data', value=1, marker='', kill_at=-1, scale=1.0, lr=0.1, refine_lr=0.1)
steps = [
    dict(name='data', kind='call', function='toy_run.make_data',
         kwargs=dict(folder='{data}', value='{value}', marker='{marker}')),
    dict(name='teach', kind='train', config='step.py',
         cfg_options={'model.labels': '{data.labels}', 'model.marker': '{marker}',
                      'model.kill_at': '{kill_at}', 'optim_wrapper.optimizer.lr': '{lr}'}),
    dict(name='refine', kind='train', config='step.py', load_from='{teach.checkpoint}',
         cfg_options={'model.scale': '{scale}', 'model.labels': '{config_dir}/x.json',
                      'optim_wrapper.optimizer.lr': '{refine_lr}'}),
    dict(name='zero_shot', kind='test', config='step.py', checkpoint='{refine.checkpoint}'),
]
summary = [dict(row='taught', step='teach'), dict(row='refined', step='refine')]
"""
STEPS = ['data', 'teach', 'refine', 'zero_shot']


@pytest.fixture
def config(tmp_path: Path, monkeypatch) -> Path:
    """A pipeline of four steps that take a fraction of a second each."""
    monkeypatch.setattr(
        'mmengine.runner.runner.collect_env', dict
    )  # it asks compilers, for a second
    gc.freeze()  # nor does the pipeline's own collection have to look at all of mmdet each time
    (tmp_path / 'step.py').write_text(STEP_CONFIG)
    (tmp_path / 'cast_test.py').write_text(PIPELINE_CONFIG)
    return tmp_path / 'cast_test.py'


def run(config: Path, capsys=None, **kwargs) -> str:
    train(config, config.parent / 'work', **kwargs)
    return capsys.readouterr().out if capsys else ''


# Processes that train start anew: forked from a process whose backward pass had threads, as it has
# in some tests, they could run no backward pass.
SPAWN = multiprocessing.get_context('spawn')


def run_and_die(config: Path, **kwargs) -> None:
    """Runs a pipeline that kills its process, in a child process."""
    child = SPAWN.Process(target=run, args=(config,), kwargs=kwargs)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def variables(**values) -> dict:
    return {f'variables.{key}': value for key, value in values.items()}


def records(config: Path) -> dict:
    return json.loads((config.parent / 'work/pipeline.json').read_text())['steps']


def finished(config: Path) -> list[str]:
    return [name for name, record in records(config).items() if record['status'] == 'finished']


def test_runs_all_steps_then_skips_them(config, capsys):
    first = run(config, capsys)
    assert finished(config) == STEPS
    assert 'step 2/4 teach' in first and 'report:' in first
    assert re.search(r'step 3/4 refine .*, about \d+\.\d min left', first)
    rows = json.loads((config.parent / 'work/summary.json').read_text())
    assert [row['mask_ap'] for row in rows] == [25.0, 25.0]
    assert rows[0]['mask_ap50'] == 50.0 and rows[0]['note'] == ''
    assert rows[0]['parameters'] == 0.0
    assert records(config)['teach']['parameters'] == 2  # without pixel_contrast
    assert 0 < records(config)['teach']['cpu_seconds'] < 60
    assert '25.0' in (config.parent / 'work/summary.txt').read_text()

    for step in ('02_teach', '03_refine'):  # each step's log is its own
        log = next((config.parent / 'work').glob(f'{step}/*/vis_data/scalars.json')).read_text()
        assert log.count('"loss"') == 6 and log.count('"coco/segm_mAP"') == 2

    times = {path: path.stat().st_mtime_ns for path in config.parent.glob('work/*/*.pth')}
    second = run(config, capsys)
    assert second.count('skipped') == 4 and 'taught' in second
    assert times == {path: path.stat().st_mtime_ns for path in config.parent.glob('work/*/*.pth')}


def test_which_steps_train_the_student_is_kept_in_their_order(config):
    """Also where all else is finished, as in a work directory of an earlier version."""
    run(config)
    state = config.parent / 'work/pipeline.json'
    content = json.loads(state.read_text())
    assert content.pop('students') == ['teach', 'refine']
    state.write_text(json.dumps(content))
    run(config)
    assert json.loads(state.read_text())['students'] == ['teach', 'refine']
    step = "dict(name='between', kind='train', config='step.py', load_from='{teach.checkpoint}'),"
    place = "    dict(name='refine'"
    config.write_text(config.read_text().replace(place, f'    {step}\n{place}'))
    run(config)
    assert finished(config)[-1] == 'between'
    assert find_source([str(config.parent / 'work')]).step == 'refine'


def test_load_from_is_loaded_and_seed_is_set(config):
    run(config, cfg_options=variables(refine_lr=0.0))
    taught, refined = (
        torch.load(config.parent / 'work' / path, weights_only=False)
        for path in ('02_teach/iter_6.pth', '03_refine/iter_6.pth')
    )
    assert torch.equal(taught['state_dict']['layer.weight'], refined['state_dict']['layer.weight'])
    assert taught['meta']['seed'] == 3


def test_work_dir_may_be_moved_or_spelled_differently(config, capsys, monkeypatch):
    run(config)
    (config.parent / 'work').rename(config.parent / 'moved')
    monkeypatch.chdir(config.parent)
    train(config.name, 'moved')
    assert capsys.readouterr().out.count('skipped') == 4


def test_a_config_may_be_called_from_another_folder(config, capsys, monkeypatch):
    """By a path with ``..``: files that are named by absolute paths are the same ones."""
    given = dict(cfg_options=variables(data=str(config.parent / 'data')), step=['data'])
    monkeypatch.chdir(config.parent)
    train(config.name, 'work', **given)
    (config.parent / 'sub').mkdir()
    monkeypatch.chdir(config.parent / 'sub')
    train(f'../{config.name}', '../work', **given)
    assert 'skipped' in capsys.readouterr().out


def test_changed_config_is_refused_and_rerun_keeps_the_old_folder(config, capsys):
    run(config)
    with pytest.raises(
        CASTError, match=r'step teach \(optim_wrapper.optimizer.lr: 0.1 -> 0.2.*--rerun teach'
    ):
        run(config, cfg_options=variables(lr=0.2))
    old = (config.parent / 'work/02_teach/iter_6.pth').read_bytes()
    capsys.readouterr()
    with pytest.raises(
        CASTError, match='step refine .the content of .*iter_6.pth'
    ):  # another input now
        run(config, cfg_options=variables(lr=0.2), rerun=['teach'])
    assert 'unless named after --rerun: refine zero_shot' in capsys.readouterr().out
    assert (config.parent / 'work/02_teach.old1/iter_6.pth').read_bytes() == old
    assert finished(config) == ['data', 'refine', 'zero_shot', 'teach']
    run(config, cfg_options=variables(lr=0.2), rerun=['refine', 'zero_shot'])
    run(config, rerun=['all'])
    assert (config.parent / 'work/02_teach.old2').is_dir()
    assert sorted(finished(config)) == sorted(STEPS)


@pytest.mark.parametrize('value', [1, 2])
def test_a_step_that_a_config_got_later_runs_before_the_others_are_compared(config, capsys, value):
    """Whether they are valid depends on what it gives."""
    config.write_text(config.read_text().replace('scale=1.0', 'scale=1'))
    run(config)
    plan = f"""
    dict(name='plan', kind='call', function='toy_run.make_data',
         kwargs=dict(folder='{{work_dir}}/plan', value={value})),
    dict(name='refine'"""
    text = config.read_text().replace("    dict(name='refine'", plan)
    config.write_text(text.replace('{scale}', '{plan.value}'))
    capsys.readouterr()
    if value == 1:  # as before
        out = run(config, capsys)
        assert 'step 3/5 plan (call)' in out and out.count('skipped') == 4
        return
    with pytest.raises(CASTError, match=r'step refine \(model.scale: 1 -> 2'):
        run(config)
    assert 'plan' in finished(config)


def test_options_that_a_step_left_are_checked_at_once_and_it_may_run_again_with_others(config):
    """The second run must not ask what the first one left."""
    given = (
        "    dict(name='plan', kind='call', function='toy_run.give', kwargs=dict(options={})),\n"
    )
    text = config.read_text().replace("    dict(name='refine'", given + "    dict(name='refine'")
    text += "steps[3]['cfg_options'] = '{plan.options}'\n"
    config.write_text(text.replace('options={}', "options={'model.scael': 2.0}"))
    for _ in range(2):
        with pytest.raises(CASTError, match='options of step refine: model.scael: .* mean scale'):
            run(config, step='plan')
        assert finished(config) == ['plan']
    config.write_text(text.replace('options={}', "options={'model.scale': 2.0}"))
    run(config, step='plan', rerun=['plan'])
    assert records(config)['plan']['outputs'] == dict(options={'model.scale': 2.0})


def test_a_step_that_is_switched_off_later_changes_what_used_it(config, capsys):
    """``zero_shot`` read the refined network; without that step it reads the taught one."""
    text = PIPELINE_CONFIG.replace('lr=0.1, refine', 'lr=0.1, refines=True, refine')
    text = text.replace(
        "dict(name='refine',", "dict(name='refine', enabled='{refines}', instead='teach',"
    )
    config.write_text(text)
    assert 'refined' in run(config, capsys)
    with pytest.raises(CASTError, match='zero_shot .*checkpoint'):
        run(config, cfg_options=variables(refines=False))
    options = dict(cfg_options=variables(refines=False), rerun=['zero_shot'])
    said = run(config, capsys, **options)
    assert 'refined' not in said and 'taught' in said
    fingerprint = json.loads(
        next((config.parent / 'work').glob('*zero_shot/fingerprint.json')).read_text()
    )
    assert 'teach' in fingerprint['settings']['step.checkpoint']
    assert run(config, capsys, cfg_options=variables(refines=False)).count('skipped') == 3


def test_changed_input_file_is_refused(config):
    run(config)
    labels = config.parent / 'work/data/labels.json'
    labels.write_text('{"value": 7}')
    with pytest.raises(CASTError, match='step teach .the content of .*labels.json'):
        run(config)
    labels.unlink()
    with pytest.raises(CASTError, match='step data .its output labels is gone'):
        run(config)


@pytest.mark.parametrize('name', ['weights.pth', 'pytorch_model.bin'])
def test_other_start_weights_under_the_same_name_are_refused(config, capsys, name):
    """The step names them among its outputs, for the model card; it has not made them."""
    torch.save({'x': torch.zeros(1)}, config.parent / name)
    start = (
        "steps = [\n    dict(name='start', kind='call', "
        "function='mmcast.models.weights.start.fit_start_weights', "
        f"kwargs=dict(out_dir='{{work_dir}}/start', num_queries=3, a='{{config_dir}}/{name}')),"
    )
    config.write_text(PIPELINE_CONFIG.replace('steps = [', start, 1))
    run(config, step=['start'])
    assert 'skipped' in run(config, capsys, step=['start'])
    torch.save({'x': torch.ones(1)}, config.parent / name)
    with pytest.raises(CASTError, match=f'step start .the content of .*{name}'):
        run(config, step=['start'])


def test_other_images_in_the_unlabeled_folder_are_refused(config, capsys):
    images = config.parent  # the work directory is in it, too
    (images / 'sub').mkdir()
    for number in range(3):
        (images / f'sub/{number}.png').write_bytes(b'pixels')
    given = "marker='{marker}', unlabeled='{config_dir}'))"
    config.write_text(PIPELINE_CONFIG.replace("marker='{marker}'))", given, 1))
    run(config, step='data')
    (images / 'notes.md').write_text('no image')
    (images / 'work/report.png').write_bytes(b'pixels')
    assert 'data: finished before, skipped' in run(config, capsys, step='data')
    for number in range(5):
        (images / f'new_{number}.jpg').write_bytes(b'pixels')
    (images / 'sub/0.png').unlink()
    (images / 'sub/1.png').write_bytes(b'more pixels')
    message = rf'data \(5 images more, 1 fewer, 1 changed in {images}\); .* --rerun data'
    with pytest.raises(CASTError, match=message):
        run(config, step='data')
    path = config.parent / 'work/01_data/fingerprint.json'
    written = path.read_text()
    earlier = {key: value for key, value in json.loads(written).items() if key != 'folders'}
    path.write_text(json.dumps(earlier))  # of before folders counted
    assert 'skipped' in run(config, capsys, step='data')
    path.write_text(written)
    run(config, rerun=['data'])
    assert finished(config) == STEPS


def test_step_alone_needs_its_inputs(config, capsys):
    with pytest.raises(
        CASTError, match=r'step refine needs \{teach.checkpoint\}, but step teach is not finished'
    ):
        run(config, step='refine')
    out = run(config, capsys, step=['data', 'teach'])
    assert finished(config) == ['data', 'teach']
    assert 'not finished: refine zero_shot' in out
    rows = json.loads((config.parent / 'work/summary.json').read_text())
    assert rows[1]['mask_ap'] is None and rows[1]['note'] == 'not finished'
    assert not (config.parent / 'work/report.html').exists()


def test_killed_in_a_call_step(config, tmp_path):
    options = variables(marker=str(tmp_path / 'marker'))
    run_and_die(config, cfg_options=options)
    assert records(config)['data']['status'] == 'started'
    run(config, cfg_options=options)
    assert finished(config) == STEPS


def test_killed_in_training_resumes_from_the_checkpoint(config, tmp_path):
    (tmp_path / 'marker').touch()  # the call step does not kill
    run(config, cfg_options=variables(marker=str(tmp_path / 'marker')), step='data')
    (tmp_path / 'marker').unlink()
    options = variables(marker=str(tmp_path / 'marker'), kill_at=5)
    run_and_die(config, cfg_options=options)
    assert records(config)['teach']['status'] == 'started'
    assert (tmp_path / 'work/02_teach/iter_4.pth').exists()
    run(config, cfg_options=options)
    assert finished(config) == STEPS
    assert records(config)['teach']['resumed']
    entries = [
        json.loads(line)
        for path in tmp_path.glob('work/02_teach/*/vis_data/scalars.json')
        for line in path.read_text().splitlines()
    ]
    assert sorted(entry['step'] for entry in entries if 'loss' in entry) == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]  # none twice
    rows = json.loads((tmp_path / 'work/summary.json').read_text())
    assert rows[0]['mask_ap'] == 25.0 and 'resumed' in rows[0]['note']


def interrupt_teaching(config: Path) -> Path:
    """A work directory as if killed right after the last checkpoint of step teach was written."""
    run(config, step=['data', 'teach'])
    state = config.parent / 'work/pipeline.json'
    content = json.loads(state.read_text())
    content['steps']['teach']['status'] = 'started'
    state.write_text(json.dumps(content))
    return config.parent / 'work/02_teach'


def test_a_resumed_step_does_not_tell_how_long_others_take(config, capsys):
    """Its time is that of its last start, which trained a part of its iterations."""
    interrupt_teaching(config)
    out = run(config, capsys)
    assert records(config)['teach']['resumed'] and 'step 3/4 refine' in out
    assert 'min left' not in out


def test_half_written_checkpoint_is_passed_over(config, capsys):
    folder = interrupt_teaching(config)
    last = folder / 'iter_6.pth'
    last.write_bytes(last.read_bytes()[:1000])
    assert 'warning: ' in (out := run(config, capsys)) and 'iter_6.pth' in out
    assert finished(config) == STEPS
    assert (
        len(torch.load(last, weights_only=False)['state_dict']) == 4
    )  # trained again from iteration 4 to 6


def test_no_readable_checkpoint_starts_anew(config, capsys):
    folder = interrupt_teaching(config)
    for path in folder.glob('*.pth'):
        path.write_bytes(b'')
    assert 'starting anew' in run(config, capsys)
    assert finished(config) == STEPS


def test_interrupted_before_the_last_validation_still_has_metrics(config):
    interrupt_teaching(config)
    run(config)
    assert records(config)['teach']['metrics'] == {'coco/segm_mAP': 0.25, 'coco/segm_mAP_50': 0.5}


def test_killed_before_last_checkpoint_was_written_exports_the_iteration_reached(config):
    """MMEngine writes the checkpoint first, then its name into a text file."""
    folder = interrupt_teaching(config)
    for content in (str(folder / 'iter_4.pth'), '', '\0' * 40):
        interrupt_teaching(config)
        (folder / 'last_checkpoint').write_text(content)
        run(config, step=['data', 'teach'])
        checkpoint = records(config)['teach']['outputs']['checkpoint']
        assert checkpoint == '{work_dir}/02_teach/iter_6.pth'
        assert (folder / 'last_checkpoint').read_text() == str(folder / 'iter_6.pth')


def test_interrupted_training_with_other_settings_is_refused(config):
    interrupt_teaching(config)
    with pytest.raises(CASTError, match='step teach .*0.1 -> 0.2'):
        run(config, cfg_options=variables(lr=0.2))


def test_a_step_whose_weights_become_nan_ends_there_and_saves_none(config):
    with pytest.raises(CASTError, match=r'diverged: 2 of 4 tensors.*iter_2\.pth was not'):
        run(config, cfg_options=variables(scale=float('nan')))
    assert 'refine' not in finished(config)
    assert not list((config.parent / 'work/03_refine').glob('*.pth*'))


def test_best_validation_counts_where_the_config_saves_it(config, monkeypatch):
    scores = iter([0.5, 0.25])  # at iterations 3 and 6
    monkeypatch.setattr(
        'toy_run.ToyMetric.compute_metrics', lambda self, results: {'coco/segm_mAP': next(scores)}
    )
    run(
        config,
        step=['data', 'teach'],
        cfg_options={
            'steps.1.cfg_options': {
                'default_hooks.checkpoint.save_best': 'coco/segm_mAP',
                'default_hooks.checkpoint.rule': 'greater',
            }
        },
    )
    record = records(config)['teach']
    assert record['metrics'] == {'coco/segm_mAP': 0.5}
    assert record['outputs'] == dict(
        checkpoint='{work_dir}/02_teach/iter_6.pth',
        best_checkpoint='{work_dir}/02_teach/best_coco_segm_mAP_iter_3.pth',
    )


def test_checkpoints_on_another_disk_are_those_of_one_work_directory(config, tmp_path):
    """Their folders have the name of the step alone; another run's would be taken as finished."""
    large = tmp_path / 'large'
    options = {'step_options.default_hooks.checkpoint.out_dir': str(large)}
    run(config, cfg_options=options)
    with pytest.raises(
        CASTError, match=r'large/02_teach is for .* of \S*work/02_teach: give anoth'
    ):
        train(config, tmp_path / 'other', cfg_options=options)
    for folder in (config.parent / 'work', tmp_path / 'other'):  # without a word of whose they are
        (folder / '02_teach').rename(folder / 'gone')
    with pytest.raises(CASTError, match=r'large/02_teach is for the checkpoints of another run'):
        train(config, tmp_path / 'other', cfg_options=options)


def test_a_step_that_runs_again_keeps_its_checkpoints_on_another_disk(config, tmp_path):
    """It trains anew, and does not take the old checkpoints for its own."""
    large = tmp_path / 'large'
    options = {'step_options.default_hooks.checkpoint.out_dir': str(large)}
    run(config, cfg_options=options)
    old = (large / '03_refine/iter_6.pth').read_bytes()
    run(config, rerun=['refine', 'zero_shot'], cfg_options=options | variables(refine_lr=1e-4))
    assert finished(config) == STEPS and not records(config)['refine']['resumed']
    assert (large / '03_refine.old1/iter_6.pth').read_bytes() == old
    assert (large / '03_refine/iter_6.pth').read_bytes() != old


def test_two_runs_at_a_time_have_their_checkpoints_on_another_disk_apart(tmp_path):
    """The first may not have saved any yet. It may be moved, but a copy is another run."""
    hooks = dict(checkpoint=dict(out_dir=str(tmp_path / 'large')))
    cfg = Config(dict(default_hooks=hooks))
    assert resumable_checkpoint(cfg, tmp_path / 'a/01_teach') is None
    with pytest.raises(CASTError, match=r'large/01_teach is for .*a/01_teach'):
        resumable_checkpoint(cfg, tmp_path / 'b/01_teach')
    shutil.copytree(tmp_path / 'a', tmp_path / 'copy')
    with pytest.raises(CASTError, match=r'large/01_teach is for .*a/01_teach'):
        resumable_checkpoint(cfg, tmp_path / 'copy/01_teach')
    assert move_elsewhere_aside(tmp_path / 'copy/01_teach') == {}
    (tmp_path / 'a').rename(tmp_path / 'moved')
    torch.save(dict(weight=torch.ones(1)), tmp_path / 'large/01_teach/iter_2.pth')
    found = resumable_checkpoint(cfg, tmp_path / 'moved/01_teach')
    assert found == tmp_path / 'large/01_teach/iter_2.pth'


def test_checkpoints_of_folds_on_another_disk_are_kept_with_their_step(tmp_path):
    """Each run of a fold has its folder in the step's, and there is where its checkpoints are."""
    hooks = dict(checkpoint=dict(out_dir=str(tmp_path / 'large')))
    for name in ('fold_1_teach', 'fold_2_teach'):
        resumable_checkpoint(Config(dict(default_hooks=hooks)), tmp_path / '04_folds' / name)
    moved = move_elsewhere_aside(tmp_path / '04_folds')
    assert [path.name for path in moved.values()] == ['fold_1_teach.old1', 'fold_2_teach.old1']
    assert sorted(tmp_path.glob('large/*')) == sorted(moved.values())


def run_as_rank(number: int, port: int, config: Path) -> None:
    """One of two processes of a pipeline, which fails first and then does not."""
    os.environ.update(
        RANK=str(number),
        LOCAL_RANK=str(number),
        WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    )
    if number == 1:
        toy_run.make_data = lambda folder, value, marker: 1 / 0  # only the first rank makes data
    with pytest.raises(
        CASTError, match='data gave no other'
    ):  # on both, though the first finds out
        run(config, launcher='pytorch', cfg_options={'steps.2.load_from': '{data.other}'})
    run(config, launcher='pytorch')
    (config.parent / f'rank{number}').touch()


def test_two_processes_run_the_steps_together(config, tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    children = [SPAWN.Process(target=run_as_rank, args=(rank, port, config)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(100)
        child.kill()
    assert (tmp_path / 'rank0').exists() and (tmp_path / 'rank1').exists()
    assert finished(config) == STEPS
    assert len(list(tmp_path.glob('work/02_teach/*/vis_data/scalars.json'))) == 1


def test_processes_that_cannot_share_a_batch_are_refused_before_anything_runs(config, monkeypatch):
    monkeypatch.setattr('mmcast.pipeline.pipeline.get_world_size', lambda: 4)
    step = config.with_name('step.py')
    step.write_text(step.read_text() + 'divide_batch_size = True')
    with pytest.raises(CASTError, match='step teach: 4 processes cannot share batches of 2'):
        run(config, step=['data', 'teach'])
    assert not (config.parent / 'work/data').exists()
    run(config, step=['data'])  # trains nothing


def test_batch_is_divided_among_the_processes():
    loader = Config(dict(batch_size=6, sampler=dict(batch_size=6, source_ratio=[1, 2])))
    divide_batch_size(loader, 2)
    assert (loader.batch_size, loader.sampler.batch_size) == (3, 3)
    with pytest.raises(
        CASTError, match='2 processes cannot share batches of 3 evenly.* multiple of 6'
    ):
        divide_batch_size(loader, 2)
    divide_batch_size(loader, 1)
    assert (loader.batch_size, loader.sampler.batch_size) == (3, 3)


def test_divided_batch_keeps_the_ratio_of_its_sources():
    with pytest.raises(
        CASTError, match='2 processes cannot share batches of 4 evenly.* multiple of 8'
    ):
        divide_batch_size(
            Config(dict(batch_size=4, sampler=dict(batch_size=4, source_ratio=[1, 3]))), 2
        )


def test_checkpoint_of_another_architecture_is_refused(config):
    run(config, step=['data', 'teach'])
    with pytest.raises(
        CASTError, match=r'iter_6.pth is a checkpoint of another architecture.*layer.weight'
    ):
        run(config, cfg_options={'steps.2.cfg_options': {'model.width': 2}})
    assert finished(config) == ['data', 'teach']


def test_named_new_parameters_may_differ_from_the_checkpoint(config):
    def options(names):
        return {'steps.2.cfg_options': {'model.width': 2, 'new_parameters': names}}

    steps = ['data', 'teach', 'refine']
    with pytest.raises(
        CASTError, match='wrong shape: layer.weight'
    ):  # another name excuses nothing
        run(config, step=steps, cfg_options=options(['head.']))
    run(config, step=steps, cfg_options=options(['layer.']))
    assert finished(config) == steps


def test_work_dir_of_another_pipeline_or_run_is_refused(config, tmp_path):
    run(config, step='data')
    other = config.rename(config.with_name('cast_other.py'))
    with pytest.raises(
        CASTError, match='belongs to the pipeline cast_test.py, not to cast_other.py'
    ):
        run(other)
    (tmp_path / 'single').mkdir()
    (tmp_path / 'single/last_checkpoint').touch()
    with pytest.raises(CASTError, match='single training run'):
        train(other, tmp_path / 'single')


def test_two_runs_at_once_are_refused(config):
    work = config.parent / 'work'
    work.mkdir()
    context = multiprocessing.get_context('fork')
    locked, done = context.Event(), context.Event()

    def hold():
        with hold_work_dir(work):
            locked.set()
            done.wait(60)

    child = context.Process(target=hold)
    child.start()
    assert locked.wait(60)
    with pytest.raises(CASTError, match=f'in use by another run .process {child.pid}'):
        run(config)
    child.kill()  # as by the kernel: nothing is tidied up
    child.join()
    run(config, step='data')


@pytest.mark.parametrize(
    'change, message',
    [
        ({'steps.0.name': 'teach'}, 'two steps of one name'),
        ({'steps.0.kind': 'fly'}, "kind 'fly'; the kinds are call, train"),
        ({'steps.1.lod_from': 'x'}, 'does not know lod_from'),
        ({'steps.1.config': 'none.py'}, 'none.py not found'),
        (
            {'steps.2.load_from': '{teach.chekpoint}'},
            'has no output chekpoint; did you mean checkpoint',
        ),
        ({'steps.2.load_from': '{tech.checkpoint}'}, 'not known; did you mean teach.checkpoint'),
        ({'steps.2.load_from': '{data.lables}'}, 'data gave no lables; did you mean labels'),
        ({'steps.0.kwargs.vaule': 1}, 'make_data takes no vaule; did you mean value'),
        ({'steps.0.function': 'toy_run.nothing'}, 'function toy_run.nothing not found'),
        ({'summary.0.step': 'tech'}, 'has no step tech'),
    ],
)
def test_mistakes_in_the_config_are_named(config, change, message):
    with pytest.raises(CASTError, match=message):
        run(config, cfg_options=change)


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'{"steps"',
        b'[]',
        b'\xff\xfe',
        b'{"pipeline": "cast_test.py", "steps": [], "hashes": {}}',
    ],
    ids=str,
)
def test_damaged_state_is_named(config, content):
    run(config, step='data')
    (config.parent / 'work/pipeline.json').write_bytes(content)
    with pytest.raises(CASTError, match='pipeline.json is damaged .*bring back a copy of it, or'):
        run(config)


def test_damaged_record_is_named(config):
    run(config, step='data')
    state = config.parent / 'work/pipeline.json'
    content = json.loads(state.read_text())
    del content['steps']['data']['outputs']
    state.write_text(json.dumps(content))
    with pytest.raises(CASTError, match="pipeline.json is damaged .KeyError.'outputs'"):
        run(config)


@pytest.mark.parametrize('content', [b'', b'{"settings"', b'[]', b'{"other": {}}'], ids=str)
def test_damaged_fingerprint_is_named_where_it_is_needed(config, content):
    run(config, step=['data', 'teach'])
    (config.parent / 'work/02_teach/fingerprint.json').write_bytes(content)
    run(config, step=['data', 'teach'])
    with pytest.raises(CASTError, match='fingerprint.json is damaged .*with --rerun teach'):
        run(config, step=['data', 'teach'], cfg_options=variables(lr=0.2))


def test_templates_keep_types_and_reach_into_nested_values():
    names = {'seed': 3, 'data.sizes': [1, 2], 'root': 'data/x'}
    value = dict(
        a='{seed}', b=['{data.sizes}', 'seed {seed}'], c=('{root}/y', 5), d='{ not a name }'
    )
    expected = dict(a=3, b=[[1, 2], 'seed 3'], c=('data/x/y', 5), d='{ not a name }')
    assert resolve(value, names.__getitem__) == expected


def test_file_hashes_notice_a_copy_with_the_time_of_its_content(tmp_path):
    state = PipelineState(tmp_path, tmp_path / 'x.py')
    path = tmp_path / 'a.json'
    path.write_text('1')
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns

    def digest():
        return state.fingerprint('s', dict(ann_file=str(path)), {}).digest

    first = digest()
    path.write_text('2')
    os.utime(path, ns=times)
    assert digest() != first


def test_file_hashes_notice_content_but_not_touch(tmp_path):
    state = PipelineState(tmp_path, tmp_path / 'x.py')
    (tmp_path / 'a.json').write_text('1')

    def digest():
        return state.fingerprint('s', dict(ann_file=str(tmp_path / 'a.json')), {}).digest

    first = digest()
    (tmp_path / 'a.json').touch()
    assert digest() == first
    (tmp_path / 'a.json').write_text('2')
    assert digest() != first
