"""benchmarks/tables.py: its statistics, and runs of tiny pipelines with seeds."""

import io
import json
import math
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from mmcast.cli.errors import reporting_errors_anew
from mmcast.cli.main import main as mmcast

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / 'benchmarks'))
import label_efficiency  # noqa: E402
import table_report  # noqa: E402
import table_rows  # noqa: E402
import table_runs  # noqa: E402
import tables  # noqa: E402

STEP = """
custom_imports = dict(imports=['toy_run'])
default_scope = 'mmengine'
model = dict(type='ToyModel')
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(type='ToyDataset'),
                        sampler=dict(type='InfiniteSampler', shuffle=True))
val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(type='ToyDataset'),
                      sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type='WeightMetric')
test_evaluator = val_evaluator
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False, save_best='coco/segm_mAP',
                    rule='less'),
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False))
log_processor = dict(by_epoch=False)
log_level = 'ERROR'
"""
# `broken` finds a file where it is to make a folder; `after` uses what it would leave.
PIPELINE = """
variables = dict(folder='{work_dir}/data', lr=0.1)
_lr = 'optim_wrapper.optimizer.lr'
training = dict(kind='train', config='step.py')
steps = dict(
    data=dict(kind='call', function='toy_run.make_data', kwargs=dict(folder='{folder}')),
    broken=dict(kind='call', function='toy_run.make_data', kwargs=dict(folder='{data.labels}')),
    after=dict(training, cfg_options={'model.labels': '{broken.labels}'}),
    teach=dict(training, cfg_options={'model.labels': '{data.labels}'}),
    refine=dict(
        training, load_from='{teach.checkpoint}', cfg_options={_lr: '{lr}'}))
summary = dict(after='without a result', teach='taught', refine='refined')
"""
TESTED = """
_base_ = './whole.py'
datasets = dict(val='val.json', test='test.json')
steps = dict(tested=dict(kind='test', config='step.py', checkpoint='{refine.checkpoint}'))
summary = dict(_delete_=True, tested='refined, tested')
"""
WHOLE = "_base_ = './broken.py'\nsteps = dict(broken=None, after=None)\n"


class Ended:
    """A process that has run: ``mmcast`` with these arguments, within this one."""

    def __init__(self, arguments, log, threads):
        log.parent.mkdir(parents=True, exist_ok=True)
        output, self.returncode = io.StringIO(), 0
        with redirect_stdout(output), redirect_stderr(output):
            try:
                with reporting_errors_anew():
                    mmcast(arguments)
            except SystemExit as stop:
                self.returncode = 1
                print(stop.code)
        with log.open('a') as file:
            file.write(output.getvalue())

    def poll(self):
        return self.returncode


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two pipelines of steps that take a fraction of a second each."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)  # it asks compilers
    monkeypatch.setattr(table_runs, 'start', Ended)
    monkeypatch.setattr(table_runs, 'INTERVAL', 0)
    monkeypatch.chdir(tmp_path)
    for name, content in dict(step=STEP, broken=PIPELINE, whole=WHOLE, tested=TESTED).items():
        Path(f'{name}.py').write_text(content)
    return tmp_path


def summary(config, *options, seeds=('0',)):
    """What ends a table: 0, or the line of an error."""
    try:
        tables.main(['summary', config, '--seeds', *seeds, '--work-dir', 'tables', *options])
    except SystemExit as stop:
        return stop.code
    return 0


def records(run):
    return json.loads(Path('tables', run, 'pipeline.json').read_text())['steps']


def row_of(path, step):
    content = json.loads(Path(path).read_text())
    return next(row for row in content['rows'] if row['step'] == step)


def test_a_table_of_two_seeds_is_written_and_finished_steps_are_kept(folder, capsys):
    assert summary('whole.py', seeds='01') == 0
    assert '[6/6] whole seed1 refine: ' in capsys.readouterr().out
    row = row_of('tables/whole/summary.json', 'refine')
    # The metric is the weight, which grows towards 1 from its random start: the first of the two
    # validations is the smaller one, which save_best keeps.
    for seed in (0, 1):
        made = records(f'whole/seed{seed}')['refine']
        one = row['seeds'][str(seed)]
        assert one['ap'] == 100 * made['metrics']['coco/segm_mAP']
        assert one['iteration'] == 2 and one['iterations'] == 4
        assert one['checkpoint'].startswith('{work_dir}/03_refine/best_coco_segm_mAP_iter_2')
        assert [iteration for iteration, _ in one['validations']] == [2, 4]
        assert one['validations'][0][1] == pytest.approx(one['ap'], abs=0.01)
        assert one['cpu_seconds'] > 0 and one['versions']['mmcast']
        assert one['command'][:2] == ['mmcast', 'train'] and '--seed' in one['command']
    both = [row['seeds'][seed]['ap'] for seed in '01']
    assert both[0] != both[1] and row['ap']['mean'] == pytest.approx(sum(both) / 2)
    text = Path('tables/whole/summary.md').read_text()
    assert f'| refined | {sum(both) / 2:.1f} ± ' in text and 'that favours them' in text

    before = Path('tables/whole/seed0/pipeline.json').stat().st_mtime_ns
    assert summary('whole.py', seeds='01') == 0
    assert Path('tables/whole/seed0/pipeline.json').stat().st_mtime_ns == before
    capsys.readouterr()
    assert summary('whole.py', '--dry-run') == 0
    listed = capsys.readouterr().out
    assert 'finished: data teach refine' in listed and 'mmcast train' not in listed


def test_a_step_that_fails_takes_those_that_need_it_along_and_no_other(folder, capsys):
    said = summary('broken.py')
    states = {name: step['status'] for name, step in records('broken/seed0').items()}
    finished = [name for name, state in states.items() if state == 'finished']
    assert finished == ['data', 'teach', 'refine']
    log = 'tables/broken/seed0.log'
    assert f'broken seed0: step broken failed with status 1, see {log}' in said
    assert 'broken seed0: step after needs broken' in said
    assert 'labels.json' in Path(log).read_text()
    assert row_of('tables/broken/summary.json', 'after')['seeds'] == {}
    assert len(row_of('tables/broken/summary.json', 'refine')['ap']['by_seed']) == 1
    assert '| without a result | - |' in capsys.readouterr().out


def test_a_row_of_a_test_says_what_was_tested_and_on_which_images(folder):
    assert summary('tested.py') == 0
    row = row_of('tables/tested/summary.json', 'tested')['seeds']['0']
    made = records('tested/seed0')
    assert row['checkpoint'].startswith('{work_dir}/03_refine/') and row['iteration'] == 4
    assert row['cpu_seconds'] == made['refine']['cpu_seconds']
    assert row['metrics'] == made['tested']['metrics'] and len(row['validations']) == 2
    text = Path('tables/tested/summary.md').read_text()
    assert 'Rows of the steps tested are of the test images' in text
    assert 'validation images' not in text


@pytest.mark.parametrize('option', ['--data=toy', '--report-on=test', '--choose-on=none'])
def test_a_summary_takes_no_option_that_it_would_ignore(folder, capsys, option):
    assert summary('whole.py', option) == 2
    assert 'it takes no --data' in capsys.readouterr().err


def test_a_percentage_of_labels_names_the_work_directory_and_the_labels_have_their_own(
    tmp_path, capsys
):
    def list_(table):
        tables.main(
            [
                *(table, '--data', 'dsb2018', '--seeds', '0', '--work-dir', str(tmp_path)),
                *('--dry-run', '--rows', 'supervised', '--cfg-options', 'variables.percent=5.0'),
            ]
        )

    list_('losses')
    listed = capsys.readouterr().out
    assert 'dsb2018/5percent_seed0 ' in listed and 'variables.percent=5\n' in listed
    with pytest.raises(SystemExit) as refused:
        list_('labels')
    assert 'several percentages' in str(refused.value.code)


def toy_table(tmp_path, capsys, *options):
    """What is listed of the table stages of the toy, and its config."""
    tables.main(['stages', '--seeds', '0', '--work-dir', str(tmp_path), '--dry-run', *options])
    return capsys.readouterr().out, (tmp_path / 'toy/stages/tables_toy.py').read_text()


def test_a_look_with_other_rows_and_checkpoints_leaves_the_config_of_a_table_that_runs(
    tmp_path, capsys
):
    _, config = toy_table(tmp_path, capsys)
    few = ('--rows', 'supervised', '--choose-on', 'none')
    listed, again = toy_table(tmp_path, capsys, *few)
    assert again == config and 'supervised_test_last' in listed and 'transfer' not in listed


def test_a_row_that_tests_is_not_reported_among_those_of_validation_images(tmp_path, capsys):
    listed, _ = toy_table(tmp_path, capsys, '--report-on', 'val')
    assert 'zero_shot test on the other half: left out' in listed
    assert 'zero_shot' not in listed.partition('left out')[2]
    with pytest.raises(SystemExit, match='leave them out of --rows'):
        toy_table(tmp_path, capsys, '--report-on', 'val', '--rows', 'zero_shot', 'refine')


def test_thresholds_of_folds_are_not_those_of_other_labels(tmp_path, capsys):
    folds = ('--cfg-options', 'variables.threshold_folds=3')
    with pytest.raises(SystemExit, match='chosen for the labels of another teacher'):
        toy_table(tmp_path, capsys, *folds)
    assert 'thresholds_2' in toy_table(tmp_path, capsys, '--rows', 'transfer', *folds)[0]


def test_an_interrupted_step_resumes(folder):
    assert summary('whole.py') == 0
    state = Path('tables/whole/seed0/pipeline.json')
    content = json.loads(state.read_text())
    content['steps']['teach']['status'] = 'started'  # as if killed after its last checkpoint
    state.write_text(json.dumps(content))
    assert summary('whole.py') == 0
    assert records('whole/seed0')['teach']['resumed']
    assert row_of('tables/whole/summary.json', 'teach')['seeds']['0']['resumed']
    text = Path('tables/whole/summary.md').read_text()
    (taught,) = (line for line in text.splitlines() if line.startswith('| taught'))
    assert taught.endswith('|  |')  # of a part of its training the minutes would say little
    # Its time is that of a part; one like it will take what the other training step took.
    progress = table_runs.Progress([table_runs.Run('whole', 'whole.py', state.parent, 0)], 1)
    progress.seen.clear()
    seconds = {name: record['seconds'] for name, record in records('whole/seed0').items()}
    assert progress.seconds_left() == pytest.approx(seconds['data'] + 2 * seconds['refine'])


def test_a_changed_step_has_no_figure_until_it_is_run_again(folder):
    assert summary('whole.py') == 0
    change = ['--cfg-options', 'variables.lr=0.2']
    said = summary('whole.py', *change)
    assert 'step refine changed since it ran (optim_wrapper.optimizer.lr: 0.1 -> 0.2' in said
    assert row_of('tables/whole/summary.json', 'refine')['seeds'] == {}
    assert len(row_of('tables/whole/summary.json', 'teach')['seeds']) == 1
    assert summary('whole.py', '--rerun-changed', *change) == 0
    assert len(row_of('tables/whole/summary.json', 'refine')['seeds']) == 1
    assert Path('tables/whole/seed0/03_refine.old1').is_dir()
    assert not Path('tables/whole/seed0/02_teach.old1').exists()


def slow_quantile(freedom, level):
    """Of Student's t: the bound below which a density, summed in small steps, has ``level``."""
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2)
    scale /= math.sqrt(freedom * math.pi)
    step, x, area = 1e-4, 0.0, 0.5
    while area < level:
        middle = x + step / 2
        area += step * scale * (1 + middle**2 / freedom) ** (-(freedom + 1) / 2)
        x += step
    return x


@pytest.mark.parametrize('plus', [{0: 3.0, 1: 7.5}, {0: 26.2, 1: 22.7, 2: 30.3, 7: 25.0}])
def test_interval_of_paired_differences_against_a_slow_reference(plus):
    minus = {0: 16.0, 1: 16.5, 2: 19.7, 7: 18.2, 9: 100.0}
    found = table_report.paired(plus, minus)
    differences = [plus[seed] - minus[seed] for seed in plus]
    number = len(differences)
    mean = sum(differences) / number
    spread = math.sqrt(sum((value - mean) ** 2 for value in differences) / (number - 1))
    assert found.mean == pytest.approx(mean) and found.spread == pytest.approx(spread)
    half = slow_quantile(number - 1, 0.975) * spread / math.sqrt(number)
    assert found.half == pytest.approx(half, rel=1e-3)
    assert list(found.seeds) == list(plus)


def test_one_pair_has_no_interval_and_no_pair_no_difference():
    one = table_report.paired({0: 3.0, 1: 5.0}, {1: 4.0, 2: 9.0})
    assert (one.mean, one.spread, one.half, one.seeds) == (1.0, None, None, {1: 1.0})
    assert table_report.paired({0: 3.0}, {1: 4.0}) is None


def test_part_of_the_way_is_of_the_seeds_that_have_all_three():
    way = table_report.part_of_the_way({0: 10.0, 1: 0.0}, {0: 25.0, 1: 9.0}, {0: 30.0})
    assert way == 0.75
    assert table_report.part_of_the_way({0: 1.0}, {0: 2.0}, {0: 1.0}) is None


def test_rows_share_the_steps_that_they_have_in_common():
    steps = table_rows.Steps(table_rows.DATA_SETS['toy'])
    samplers = {row.title: row.step for row in table_rows.table_of(steps, 'samplers').rows}
    losses = {row.title: row.step for row in table_rows.table_of(steps, 'losses').rows}
    # What a table varies is, at the shipped setting, the pipeline's own step.
    assert samplers['negatives by mask and class (fusion)'] == 'transfer'
    assert losses['pseudo-labels and pixel loss'] == 'transfer'
    assert samplers['no pixel loss'] == losses['pseudo-labels alone']
    by_mask = steps.steps[samplers['by mask']]
    assert by_mask['pseudo_labels'] == '{pseudo_label_2.annotations}'
    assert by_mask['cfg_options'] == {
        'model.pixel_contrast.loss.type': 'PixelContrastiveLoss',
        'model.pixel_contrast.loss_weight': 0.1,
        'model.pixel_contrast.loss.sampling': 'mask',
    }


def test_a_method_without_a_part_uses_its_own_steps_and_shares_the_others(tmp_path):
    steps = table_rows.Steps(table_rows.DATA_SETS['toy'])
    table_rows.table_of(steps, 'stages')
    step = steps.steps
    assert step['transfer_without_self_training']['pseudo_labels'] == '{pseudo_label_1.annotations}'
    without = '{transfer_without_self_training.checkpoint}'
    assert step['refine_without_self_training']['load_from'] == without
    pixel_free = step['adapt_self_training_without_pixel_loss']
    assert pixel_free['pseudo_labels'] == '{pseudo_label_1_without_pixel_loss.annotations}'
    assert pixel_free['cfg_options'] == {'model.pixel_contrast.loss_weight': 0}
    assert pixel_free['load_from'] == '{foundation_teacher}'
    assert steps.test('zero_shot', choose=True) == 'zero_shot'
    read = {choose: steps.test('supervised', choose) for choose in (True, False)}
    assert step[read[True]]['checkpoint'] == '{supervised.best_checkpoint}'
    assert step[read[False]]['checkpoint'] == '{supervised.checkpoint}'
    assert step[steps.test('refine', True)]['checkpoint'] == '{refine.checkpoint}'
    steps.write(tmp_path / 'tables_toy.py', ['refine_without_self_training'])
    run = table_runs.Run('toy', tmp_path / 'tables_toy.py', tmp_path / 'run', 0)
    assert 'refine_without_self_training' in run.steps
    assert not [name for name in run.plan.definitions if 'pixel' in name]


def test_options_that_are_off_by_default_are_on_one_at_a_time(tmp_path):
    steps = table_rows.Steps(table_rows.DATA_SETS['toy'])
    rows = [row.step for row in table_rows.table_of(steps, 'options').rows]
    steps.write(tmp_path / 'tables_toy.py', rows)
    plan = table_runs.Run('toy', tmp_path / 'tables_toy.py', tmp_path / 'run', 0).plan
    shipped, step = plan.definitions['transfer'], plan.definitions
    assert step['transfer_mixup'] == shipped | dict(mixing=dict(mixup=dict(prob=0.5)))
    assert step['transfer_longer']['cfg_options']['train_cfg.max_iters'] == 1800
    one_view = step['pseudo_label_2_one_view']
    assert (one_view['flip'], one_view['scales']) == (False, [1.0])
    labels = '{pseudo_label_2_one_view.annotations}'
    assert step['transfer_one_view'] == shipped | dict(pseudo_labels=labels)
    assert step['folds_chosen_thresholds']['folds'] == 3 and 'folds' not in step
    chosen = step['thresholds_2_chosen_thresholds']
    assert chosen['held_out'] == '{folds_chosen_thresholds.held_out}' and chosen['folds'] == 3
    assert 'transfer_flip_and_three_scales' not in rows  # what cast_toy.py has anyway


def test_custom_data_have_no_curve_over_labels():
    steps = table_rows.Steps(table_rows.DATA_SETS['custom'])
    with pytest.raises(Exception, match='choose stages, losses, samplers or options'):
        table_rows.table_of(steps, 'labels')


def test_a_pixel_loss_that_is_off_is_compared_with_one_that_is_on():
    steps = table_rows.Steps(table_rows.DATA_SETS['custom'])
    table = table_rows.table_of(steps, 'stages')
    (difference,) = [each for each in table.differences if 'pixel' in each.title]
    assert (difference.plus, difference.minus) == ('refine_with_pixel_loss', 'refine')
    for step in ('adapt_labeled', 'transfer'):
        weights = [
            steps.config(name).model.pixel_contrast.loss_weight
            for name in (step, f'{step}_with_pixel_loss')
        ]
        assert weights == [0, 0.1]
    differences = table_rows.table_of(steps, 'losses').differences
    (difference,) = [each for each in differences if each.title.startswith('pixel loss in 1a')]
    assert difference.plus == 'adapt_labeled_with_pixel_loss'


def labels_table(folder, seeds, without=()):
    """The file of a table ``labels`` of DSB2018, where each row has AP of these seeds."""
    steps = table_rows.Steps(table_rows.DATA_SETS['dsb2018'])
    table = table_rows.table_of(steps, 'labels')
    one = dict(ap50=40.0, cpu_seconds=60.0, iteration=1)
    rows = {row.name: {seed: dict(one, ap=20.0 + seed) for seed in seeds} for row in table.rows}
    for name, seed in without:
        del rows[name][seed]
    facts = dict(
        metric='segm_mAP',
        seeds=list(seeds),
        report_on='test',
        reported_images=57,
        labeled_images={'1': 3, '2.5': 8, '10': 33},
        all_images=331,
    )
    path = folder / 'dsb2018/labels.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table_report.Results('', table, rows, [], facts).content()))
    return path


def drawn_texts(path):
    return [text.replace('- -', '--') for text in re.findall('<!-- (.*?) -->', path.read_text())]


def test_the_figure_of_all_data_sets_says_what_is_missing(tmp_path, capsys):
    path = labels_table(
        tmp_path, (0, 1, 2), [('refine@2.5', 1), *(('supervised@1', i) for i in range(3))]
    )
    content = json.loads(path.read_text())
    content['rows'] = [row for row in content['rows'] if row['name'] != 'refine@10']  # by --rows
    path.write_text(json.dumps(content))
    out = tmp_path / 'figures/curves.svg'
    for _ in range(2):
        label_efficiency.main(['--work-dir', str(tmp_path), '--out', str(out)])
    texts = drawn_texts(out)
    for text in (
        'DSB2018, 57 test images',
        'CAST, refined student',
        'the student on the labels alone',
        'the student on all labels',
        '95 % interval of the mean',
        '331',
        'CAST, refined, 2.5 % of labels: of seeds 0, 1, 2 only 0, 2',
        'supervised, 1 % of labels: no result yet',
        'the table was made without refine@10',
        'labels --data cityscapes_small',
    ):
        assert text in texts, text
    assert texts.count('no results yet') == 2  # the toy and Cityscapes
    said = capsys.readouterr().out
    assert 'toy: no results yet; python benchmarks/tables.py labels --data toy' in said
    assert 'dsb2018: supervised, 1 % of labels: no result yet' in said


def test_the_same_results_give_the_same_file_and_two_seeds_no_interval(tmp_path):
    content = json.loads(labels_table(tmp_path, (0, 1)).read_text())
    paths = [tmp_path / f'labels.{kind}' for kind in ('svg', 'png')]
    label_efficiency.plot(dict(dsb2018=content), paths)
    drawn = [path.read_bytes() for path in paths]
    texts = drawn_texts(paths[0])
    assert 'the student on all labels' in texts and '95 % interval of the mean' not in texts
    label_efficiency.plot(dict(dsb2018=content), paths)
    assert [path.read_bytes() for path in paths] == drawn


def test_no_table_or_a_damaged_one_is_no_figure(tmp_path):
    def refused():
        with pytest.raises(SystemExit) as stop:
            label_efficiency.main(['--work-dir', str(tmp_path)])
        return str(stop.value.code)

    assert 'has no table of labels' in refused()
    path = labels_table(tmp_path, (0,))
    path.write_text(path.read_text()[:-9])
    assert f'{path} is no table of labels' in refused()
    assert not (tmp_path / 'label_efficiency.png').exists()
