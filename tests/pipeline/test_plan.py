"""What a pipeline config asks for, before anything runs."""

import shutil
import subprocess
import sys
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
from mmengine.config import Config

from mmcast.configs import shipped_configs
from mmcast.errors import CASTError
from mmcast.pipeline.plan import Plan
from mmcast.pipeline.settings import merge_options
from mmcast.pipeline.state import PipelineState
from mmcast.pipeline.steps import StepResult
from mmcast.typed_values import Typed

STEP = """
train_dataloader = dict(dataset=dict(datasets=[
    dict(type='CocoDataset', ann_file='old.json', data_root='old/', pipeline=[
        dict(type='Resize', scale=(1, 1)), dict(type='PackDetInputs')]),
    dict(type='PseudoLabelDataset', ann_file='old.json', pipeline=[])]))
val_dataloader = dict(dataset=dict(type='CocoDataset', ann_file='old.json', pipeline=[]))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='CocoMetric', ann_file='old.json'), dict(type='CityScapesMetric', seg_prefix='old')]
test_evaluator = dict(type='CocoMetric', ann_file='old.json')
train_cfg = dict(max_iters=10)
load_from = 'step.pth'
"""
PIPELINE = """
variables = dict(lr=0.1, start='{work_dir}/start.pth', best='{adapt.checkpoint}')
steps = dict(
    data=dict(kind='call', function='os.getcwd'),
    adapt=dict(kind='train', config='step.py', load_from='{start}'),
    label=dict(kind='pseudo_label', config='step.py', checkpoint='{best}'),
    student=dict(kind='train', config='step.py', pseudo_labels='{label.annotations}',
                 cfg_options={'train_cfg.max_iters': 7}))
datasets = '{data}'
summary = dict(adapt='teacher', student='student')
report = dict(columns=[dict(title='A', step='adapt'), dict(title='S', step='student')])
"""
FILES = dict(
    labeled='labeled.json',
    unlabeled='unlabeled.json',
    train_images='train',
    val='val.json',
    val_images='val',
    val_masks='masks',
    classes=['cell'],
    transforms=dict(Resize=dict(scale=[2, 2])),  # outputs go through JSON
)


@pytest.fixture
def write(tmp_path):
    """Writes a pipeline config beside the step config; returns its path."""
    (tmp_path / 'step.py').write_text(STEP)
    (tmp_path / 'base.py').write_text(PIPELINE)

    def write_config(text: str, name: str = 'cast_test.py') -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write_config


def plan_of(path: Path, **options) -> Plan:
    return Plan(path, path.parent / 'work', **options)


def names(path: Path, **options) -> list[str]:
    return list(plan_of(path, **options).definitions)


def finish(plan: Plan, **outputs: dict) -> PipelineState:
    """A state in which some steps are finished, with these outputs."""
    state = PipelineState(plan.work_dir, plan.path)
    for name, given in outputs.items():
        state.records[name] = dict(
            status='finished', folder=name, outputs=StepResult(given).outputs
        )
    return state


# ---- order


def test_steps_run_in_the_order_of_the_config(write):
    assert names(write(PIPELINE)) == ['data', 'adapt', 'label', 'student']


def test_a_dump_of_a_config_runs_in_the_same_order(write):
    """MMEngine's dump sorts the keys."""
    path = write(PIPELINE)
    config = Config.fromfile(path)
    config.dump(path.with_name('dumped.py'))
    dumped = Config.fromfile(path.with_name('dumped.py'))
    assert list(dumped.steps) == ['adapt', 'data', 'label', 'student']  # there is something to do
    assert names(path.with_name('dumped.py')) == names(path)


@pytest.mark.parametrize('name', ['cast_toy.py', 'cast_cityscapes_single_gpu.py'])
def test_dumps_of_shipped_pipelines_run_what_each_step_needs_before_it(name, tmp_path):
    shipped = Plan(name)
    shipped.config.dump(tmp_path / 'dumped.py')
    dumped = Plan(tmp_path / 'dumped.py')
    assert set(dumped.definitions) == set(shipped.definitions)
    for number, step in enumerate(dumped.definitions):
        assert dumped.needs(step) <= set(list(dumped.definitions)[:number])


def test_a_new_step_moves_in_front_of_those_that_use_it(write):
    path = write("""
_base_ = './base.py'
steps = dict(
    start=dict(kind='call', function='os.getcwd'),
    adapt=dict(load_from='{start.weights}'))
""")
    assert names(path) == ['data', 'start', 'adapt', 'label', 'student']


def test_after_is_not_used_up_by_ordering(write):
    """A plan of the same config a second time, as the report makes it."""
    path = write(
        "_base_ = './base.py'\n"
        "steps = dict(data2=dict(kind='call', function='os.getcwd', after='data'))"
    )
    assert names(path) == names(path) == ['data', 'data2', 'adapt', 'label', 'student']


def test_circles_are_named(write):
    path = write("_base_ = './base.py'\nsteps = dict(adapt=dict(load_from='{student.checkpoint}'))")
    with pytest.raises(CASTError, match='in a circle: adapt <- student <- label <- adapt'):
        plan_of(path)


def test_dependents(write):
    plan = plan_of(write(PIPELINE))
    assert plan.dependents({'adapt'}) == {'label', 'student'}
    assert plan.dependents({'data'}) == {'adapt', 'label', 'student'}  # by `datasets`
    assert plan.dependents({'student'}) == set()


# ---- mixed images


def mixing_of(plan, name):
    """``mixing`` of the two data sets of a step."""
    state = finish(plan, data=FILES, adapt=dict(checkpoint='a.pth'), label=dict(annotations='p'))
    datasets = plan.step(name, Path('folder'), state).config.train_dataloader.dataset.datasets
    return [dataset.get('mixing') for dataset in datasets]


def test_mixing_is_of_the_pseudo_labeled_images_of_every_training_step(write):
    path = write(PIPELINE + '\nmixing = dict(mixup=dict(prob=0.3))')
    plan = plan_of(path, cfg_options={'mixing.mosaic.prob': Typed('0.25')})
    both = dict(mixup=dict(prob=0.3), mosaic=dict(prob=0.25))
    assert mixing_of(plan, 'adapt') == mixing_of(plan, 'student') == [None, both]
    assert mixing_of(plan, 'label') == [None, None]
    assert mixing_of(plan_of(write(PIPELINE)), 'student') == [None, None]


def test_a_step_changes_mixing_or_has_none(write):
    path = write(
        PIPELINE
        + """
mixing = dict(mixup=dict(prob=0.3), mosaic=dict(prob=0.1), copy_paste=dict(prob=0.2, min_area=1))
steps['adapt']['mixing'] = None
steps['student']['mixing'] = dict(mosaic=None, copy_paste=dict(min_area=9))
"""
    )
    assert mixing_of(plan_of(path), 'adapt') == [None, None]
    given = dict(mixup=dict(prob=0.3), mosaic=None, copy_paste=dict(prob=0.2, min_area=9))
    assert mixing_of(plan_of(path), 'student') == [None, given]


@pytest.mark.parametrize(
    'option, message',
    [
        ('mixing.mixupp.prob', r'cast_test.py: mixing has no mixupp; did you mean mixup\?'),
        ('mixing.mixup.prb', r'mixing.mixup has no prb; did you mean prob\?'),
        ('steps.student.mixing.mixup.prb', r'step student: mixing.mixup has no prb'),
        ('steps.label.mixing.mixup.prob', 'step label .* does not know mixing'),
    ],
)
def test_mistakes_in_mixing_are_named_before_anything_runs(write, option, message):
    with pytest.raises(CASTError, match=message):
        plan_of(write(PIPELINE), cfg_options={option: Typed('0.5')})


def test_mixing_where_nothing_is_pseudo_labeled_is_refused(write, tmp_path):
    path = write(PIPELINE)
    (tmp_path / 'labels.py').write_text(STEP.replace('PseudoLabelDataset', 'CocoDataset'))
    options = {'steps.adapt.config': 'labels.py', 'mixing.mixup.prob': 0.5}
    plan_of(path, cfg_options=options)  # for the student
    options['steps.adapt.mixing.mixup.prob'] = 0.5
    with pytest.raises(CASTError, match='step adapt: mixing is of .* steps with them: student'):
        plan_of(path, cfg_options=options)
    del options['steps.adapt.mixing.mixup.prob']
    with pytest.raises(CASTError, match='cast_test.py: mixing is of .* steps with them: none'):
        plan_of(path, cfg_options=options | {'steps.student.config': 'labels.py'})


# ---- what a config drops, adds and misspells


def test_none_drops_a_step_with_its_row_and_its_column(write):
    plan = plan_of(write("_base_ = './base.py'\nsteps = dict(student=None)"))
    assert list(plan.definitions) == ['data', 'adapt', 'label']
    assert plan.rows == [dict(row='teacher', step='adapt')]
    assert [column['title'] for column in plan.report_columns()] == ['A']


def test_a_dropped_step_that_another_needs_is_named_before_anything_runs(write):
    with pytest.raises(
        CASTError, match=r'step label uses \{adapt.checkpoint\}, which is not known'
    ):
        plan_of(write("_base_ = './base.py'\nsteps = dict(adapt=None)"))


def test_summary_in_the_order_of_the_steps_or_as_listed(write):
    text = PIPELINE + "summary = dict(student='S', adapt='A')"
    assert [row['row'] for row in plan_of(write(text)).rows] == ['A', 'S']
    text = PIPELINE + "summary = [dict(row='S', step='student'), dict(row='A', step='adapt')]"
    assert [row['row'] for row in plan_of(write(text)).rows] == ['S', 'A']
    with pytest.raises(CASTError, match='no step studnet; did you mean student'):
        plan_of(write(PIPELINE + "summary = dict(studnet='S')"))


def test_a_column_of_the_report_is_the_network_of_its_step(write):
    plan = plan_of(write(PIPELINE))
    column = plan.report_columns()[1]
    assert column == dict(
        title='S',
        config='step.py',
        checkpoint='{student.checkpoint}',
        cfg_options={'train_cfg.max_iters': 7},
        transforms={},
    )
    state = finish(plan, data=FILES, student=dict(checkpoint='s.pth'))
    assert plan.templates.resolve(column, 'report', state)['checkpoint'] == 's.pth'
    assert plan.column_config(column, state).test_dataloader.dataset.ann_file == 'val.json'
    wrong = PIPELINE + "report = dict(columns=[dict(title='X', step='nobody')])"
    with pytest.raises(CASTError, match='no step nobody'):
        plan_of(write(wrong)).report_columns()


@pytest.mark.parametrize(
    'text, message',
    [
        ("steps['adapt']['lod_from'] = 'x'", 'step adapt .kind train. does not know lod_from'),
        ("steps['label'].pop('checkpoint')", 'step label .kind pseudo_label. lacks checkpoint'),
        ("steps['adapt']['kind'] = 'trian'", "is of kind 'trian'; the kinds are call, train"),
        ("steps['2b'] = dict(kind='call')", "a step needs a name of .* not '2b'"),
        ("steps['adapt']['config'] = 'stpe.py'", 'config .*stpe.py not found'),
        ("step_option = dict()", 'cast_test.py: step_option is not used; write step_options'),
        ("step_options = {'trian_cfg.max_iters': 3}", 'trian_cfg: nothing .* mean train_cfg'),
        (
            "steps['student']['cfg_options'] = {'train_dataloder.num_workers': 0}",
            'student: train_dataloder: nothing reads it; did you mean train_dataloader',
        ),
        ('steps = dict()', 'has no steps'),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_anything_runs(write, text, message):
    with pytest.raises(CASTError, match=message):
        plan_of(write(f'{PIPELINE}\n{text}'))


def test_new_keys_of_a_runner_are_no_mistakes(write):
    """`val_cfg` is close to `train_cfg`, but MMEngine knows it."""
    options = {'val_cfg': dict(), 'custom_hooks': [], 'auto_scale_lr': dict()}
    plan_of(write(PIPELINE + f'step_options = {options}'))


def test_a_variable_takes_none_but_its_choices(write):
    path = write(f"{PIPELINE}\nchoices = dict(lr=(0.1, 0.2), best=('{{adapt.checkpoint}}',))")
    assert plan_of(path, cfg_options={'variables.lr': 0.2}).config.variables.lr == 0.2
    with pytest.raises(CASTError, match=r'variables.lr is 0.3; there are 0.1, 0.2$'):
        plan_of(path, cfg_options={'variables.lr': 0.3, 'variables.best': '{adapt.checkpoint}'})
    with pytest.raises(CASTError, match='choices.lrr is of no variable; did you mean lr'):
        plan_of(write(f'{PIPELINE}\nchoices = dict(lrr=(1,))'))


def test_a_misspelt_variable_on_the_command_line_is_named(write):
    path = write(PIPELINE)
    with pytest.raises(CASTError, match='variables.lrr: there is no variable lrr; did you mean lr'):
        plan_of(path, cfg_options={'variables.lrr': 1})
    assert plan_of(path, cfg_options={'variables.lr': 1}).config.variables.lr == 1


@pytest.mark.parametrize(
    'text, message',
    [
        ("report = dict(imges=3, columns=[])", 'report has no imges; did you mean images'),
        ("report = dict(columns=[dict(titel='A', step='adapt')])", 'columns.0 has no titel'),
        (
            "report = dict(pseudo_labels=dict(score_th=3)); model_card = dict(lisences={})",
            'model_card has no lisences; did you mean licences.; .* has no score_th; .* score_thr',
        ),
        ("datasets = dict(lableled='x')", 'datasets has no lableled; did you mean labeled'),
        ("datasets = dict(transforms=dict(Rezise=dict(scale=1)))", 'Rezise: .* mean Resize'),
        ("datasets = dict(transforms=dict(Resize=dict(scale=(9, -5))))", 'above 0, so .* -5'),
        ("summary = [dict(row='S', stpe='student')]", 'summary.0 has no stpe; did you mean step'),
        ("step_options = dict(train_cfg=dict(max_itters=3))", 'max_itters: .* mean max_iters'),
        ("step_options = {'val_evaluator.7.ann_file': 'x'}", 'has the items 0 to 1 .step adapt'),
        ("step_options = {'train_cfg.max_iters.x': 3}", 'max_iters: is 10, which has no x'),
        (
            "variables['o'] = {'train_dataloder.x': 1}; steps['label']['cfg_options'] = '{o}'",
            'train_dataloder: nothing reads it; did you mean train_dataloader',
        ),
        ("steps['data']['function'] = 'os.getcwdd'", 'function os.getcwdd not found'),
        ("steps['data']['kwargs'] = dict(x=1)", 'os.getcwd takes no x'),
        ("steps['data'].update(function='os.path.join')", 'os.path.join needs a'),
    ],
)  # fmt: skip
def test_keys_that_nothing_reads_are_refused(write, text, message):
    with pytest.raises(CASTError, match=message):
        plan_of(write(f'{PIPELINE}\n{text}'))


@pytest.mark.parametrize(
    'options, message',
    [
        ({'reprot.images': 1}, 'a pipeline has no reprot; did you mean report'),
        ({'steps.studnet.load_from': 'x'}, 'there is no step studnet; did you mean student'),
        ({'steps.studnet': None}, 'there is no step studnet'),
        ({'mine.x': 1}, 'mine is a name of the config file'),
        ({'variables.lr.x': 1}, 'variables.lr.x cannot be set'),
        ({'variables.lr': Typed('fast')}, 'variables.lr=fast: give a number, such as 0.1'),
        ({'variables.lrr': 1, 'reprot': 1}, 'variable lrr; .*; reprot: '),
        ({'variables.start': Typed('')}, 'variables.start= has no value; write .*=None'),
        ({'steps.label.flip': Typed('no')}, "step label: flip is 'no', which is no bool"),
        ({'steps.label.scales': Typed('0.5')}, 'scales is 0.5, which is no .*Sequence'),
        ({'steps.label.limit': 2.5}, 'step label: limit is 2.5, which is no int'),
        (
            {
                'steps.data.function': 'mmcast.coco.custom.prepare_custom_data',
                'steps.data.kwargs': dict(data_root=None, labeled='a', unlabeled=2, out_dir='b'),
            },
            'data_root is None, which is no str .*; unlabeled is 2, which is no str',
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(write, options, message):
    with pytest.raises(CASTError, match=message):
        plan_of(write(PIPELINE + 'mine = dict(x=2)'), cfg_options=options)


def test_an_option_may_replace_the_only_use_of_a_variable(write):
    path = write(PIPELINE)
    own = path.with_name('own.py')
    own.write_text(
        f"_base_ = '{path.name}'\nvariables = dict(weights='a.pth')\n"
        "steps = dict(student=dict(load_from='{weights}'))"
    )
    plan = plan_of(own, cfg_options={'steps.student.load_from': 'b.pth'})
    assert plan.definitions['student']['load_from'] == 'b.pth'


@pytest.mark.parametrize('key', ['summary', 'report', 'report.columns', 'step_options'])
def test_a_part_of_a_pipeline_may_be_none(write, key):
    plan = plan_of(write(PIPELINE), cfg_options={key: None})
    assert key == 'summary' or plan.rows
    assert not key.startswith('report') or plan.report_columns() == []


def test_options_may_mean_one_of_the_steps(write):
    """The student's config has a key that the teacher's lacks; its other options are checked."""
    path = write(
        PIPELINE.replace(
            "cfg_options={'train_cfg", "config='own.py', cfg_options={'train_cfg", 1
        ).replace("student=dict(kind='train', config='step.py',", "student=dict(kind='train',")
    )
    path.with_name('own.py').write_text(STEP + "model = dict(type='CASTDetector', detector=dict())")
    plan_of(path, cfg_options={'step_options.model.semi_test_cfg.x': 1})
    with pytest.raises(
        CASTError, match='model.detectr: CASTDetector does not take it; .* detector'
    ):
        plan_of(path, cfg_options={'steps.student.cfg_options.model.detectr.x': 1})


def test_an_option_replaces_one_dotted_key_and_no_other(write):
    """MMEngine's merge forgets the dotted keys beside a dict of the same name."""
    path = write(PIPELINE + "step_options = {'train_cfg.max_iters': 5, 'train_cfg.val_begin': 2}")
    plan = plan_of(path, cfg_options={'step_options.train_cfg.max_iters': 6})
    state = finish(plan, data=FILES)
    config = plan.step('adapt', plan.work_dir / 'x', state).config
    assert config.train_cfg == dict(max_iters=6, val_begin=2)


def test_a_config_that_inherits_misspells_a_name(write):
    for text, message in (
        ('variables = dict(statr=1)', 'variables.statr is used by nothing; did you mean start'),
        ('steps = dict(studnet=None)', 'there is no step studnet to drop; did you mean student'),
    ):
        with pytest.raises(CASTError, match=message):
            plan_of(write(f"_base_ = './base.py'\n{text}"))
    plan_of(
        write(
            "_base_ = './base.py'\nvariables = dict(n=1)\nsteps = dict(adapt=dict(load_from='{n}'))"
        )
    )
    # Of a dropped step: the base has it.
    plan_of(
        write(
            "_base_ = './base.py'\n"
            'steps = dict(label=None, student=None, adapt=dict(load_from=None))'
        )
    )


def test_a_run_config_misspells_a_name_of_the_runner(write):
    path = write(PIPELINE)
    path.with_name('step.py').write_text(STEP + 'optim_wraper = dict()')
    with pytest.raises(CASTError, match='step.py: optim_wraper is not used; write optim_wrapper'):
        plan_of(path)


@pytest.mark.parametrize(
    'key, text, value',
    [
        ('variables.start', 'My Drive/a, b', 'My Drive/a, b'),
        ('variables.start', '2024', '2024'),
        ('variables.start', '{data.x}', '{data.x}'),
        ('variables.none', 'None', None),
        ('variables.none', '0', '0'),
        ('variables.lr', '1', 1),
        ('variables.size', '3e2', 300),
        ('variables.start', '""', ''),
        ('variables.classes', '0', ['0']),
        ('variables.classes', '"car, red",traffic light', ['car, red', 'traffic light']),
        ('variables.sizes', '3,4', (3, 4)),
        ('variables.flag', 'false', False),
        ('steps.data.kwargs.value', '3', 3),  # through '{lr}', a number
        ('steps.data.kwargs.folder', '3', '3'),  # through '{start}', a text
        ('steps.data.kwargs.image', '3', '3'),  # '{start}/{lr}', a text
        ('step_options.train_cfg.max_iters', '3', 3),
        ('step_options.load_from', 'My Drive/a.pth', 'My Drive/a.pth'),
        ('step_options.x.metainfo.classes', 'car', ['car']),
        ('step_options.x.metainfo.classes', '{classes}', '{classes}'),
        ('report.score_thr', '0.5', 0.5),
    ],
)
def test_what_was_typed_takes_the_type_of_what_it_replaces(key, text, value):
    config = Config(
        dict(
            variables=dict(
                lr=0.1, start='a', none=None, classes=None, sizes=(1, 2), flag=True, size=1
            ),
            steps=dict(
                data=dict(kwargs=dict(value='{lr}', folder='{start}', image='{start}/{lr}'))
            ),
            report=dict(score_thr=0.3),
        )
    )
    merge_options(config, {key: Typed(text)}, 'x.py')
    found = reduce(getitem, key.split('.'), config)
    assert found == value and type(found) is type(value)


# ---- templates


@pytest.mark.parametrize(
    'text, message',
    [
        ("variables['lr'] = '{nobody}'; steps['adapt']['load_from'] = '{lr}'", 'uses {nobody}'),
        ("steps['data']['kwargs'] = dict(a=[dict(b='x{nobody.x}y')])", 'step data uses {nobody.x}'),
        ("step_options = {'model.a': '{nobody}'}", 'step adapt uses {nobody}'),
        ("datasets = dict(val='{nobody}')", 'step adapt uses {nobody}'),
        ("variables['start'] = 'x/{start}'", 'step adapt uses {start}'),
    ],
)  # fmt: skip
def test_unknown_templates_are_named_before_anything_runs(write, text, message):
    with pytest.raises(CASTError) as error:
        plan_of(write(f'{PIPELINE}\n{text}'))
    assert message in str(error.value) and 'known are work_dir, seed' in str(error.value)


def test_variables_may_name_variables_and_outputs(write):
    plan = plan_of(write(PIPELINE + "variables['twice'] = 'x {start} {lr}'"))
    assert plan.templates.resolve('{twice}', 'test') == f'x {plan.work_dir}/start.pth 0.1'
    assert plan.templates.resolve('{lr}', 'test') == 0.1  # a whole template keeps its type
    with pytest.raises(CASTError, match='step adapt is not finished; run it first: --step adapt'):
        plan.templates.resolve('{best}', 'test')
    state = finish(plan, adapt=dict(checkpoint='a.pth'))
    assert plan.templates.resolve('{best}', 'test', state) == 'a.pth'
    assert plan.needs('label') == {'data', 'adapt'}
    with pytest.raises(
        CASTError, match='step adapt kept no best checkpoint: its config has no save_best, or no'
    ):
        plan.templates.resolve('{adapt.best_checkpoint}', 'test', state)
    with pytest.raises(CASTError, match='adapt gave no checkpiont; did you mean checkpoint'):
        plan.templates.resolve('{adapt.checkpiont}', 'test', state)


def test_an_output_that_is_missing_stops_those_steps_alone_that_use_it(write):
    """Also through a variable; the report, made at the end, stops them for a typo alone."""
    text = PIPELINE.replace("best='{adapt.checkpoint}'", "best='{adapt.best_checkpoint}'")
    text += "report['other_runs'] = dict(base='{adapt.best_checkpoint}')\n"
    plan = plan_of(write(text))
    state = finish(plan, data=FILES, adapt=dict(checkpoint='a.pth'))
    plan.check_outputs(['adapt', 'student'], state)
    with pytest.raises(
        CASTError, match='step label uses {adapt.best_checkpoint}, but step adapt k'
    ):
        plan.check_outputs(['label', 'student'], state)
    plan = plan_of(write(PIPELINE + "report['img_dir'] = '{data.val_imags}'"))
    with pytest.raises(CASTError, match='report uses .* gave no val_imags; did you mean val_ima'):
        plan.check_outputs([], finish(plan, data=FILES))


def test_names_of_checkpoints_that_resuming_would_not_find_stop_before_anything_runs(write):
    key = 'step_options.default_hooks.checkpoint.filename_tmpl'
    with pytest.raises(CASTError, match=r'step adapt: .*filename_tmpl is .*leave it out'):
        plan_of(write(PIPELINE), cfg_options={key: 'model_{:06d}.pth'})
    plan_of(write(PIPELINE), cfg_options={key: None})  # MMEngine's own default


def test_a_step_alone_is_all_its_outputs(write):
    plan = plan_of(write(PIPELINE))
    state = finish(plan, data=FILES)
    assert plan.templates.resolve('{data}', 'test', state) == FILES
    assert plan.files(dict(kind='train'), state) == FILES
    assert plan.files(dict(kind='train', labeled='mine.json'), state)['labeled'] == 'mine.json'


# ---- configs of steps


def test_datasets_reach_every_loader_and_metric(write):
    plan = plan_of(write(PIPELINE))
    state = finish(
        plan, data=FILES, label=dict(annotations='pseudo.json'), adapt=dict(checkpoint='a')
    )
    config = plan.step('student', plan.work_dir / 'x', state).config
    labeled, pseudo = config.train_dataloader.dataset.datasets
    assert (labeled.ann_file, labeled.data_prefix.img, labeled.data_root) == (
        'labeled.json',
        'train',
        '',
    )
    assert labeled.metainfo.classes == ('cell',)
    assert labeled.pipeline[0].scale == (2, 2) and labeled.pipeline[1] == dict(type='PackDetInputs')
    assert (pseudo.ann_file, pseudo.data_prefix.img) == ('pseudo.json', 'train')
    for part in (config.val_dataloader, config.test_dataloader):
        assert (part.dataset.ann_file, part.dataset.data_prefix.img) == ('val.json', 'val')
    coco, cityscapes = config.val_evaluator
    assert coco.ann_file == config.test_evaluator.ann_file == 'val.json'
    assert cityscapes.seg_prefix == 'masks'
    label = plan.step('label', plan.work_dir / 'x', state)
    assert (label.definition['ann_file'], label.definition['img_dir']) == (
        'unlabeled.json',
        'train',
    )
    untouched = label.config.train_dataloader.dataset.datasets[0]
    assert untouched.ann_file == 'old.json'  # only training steps read it
    assert label.config.load_from is None


@pytest.mark.parametrize('own_images', [True, False])
def test_tests_read_other_images_than_validation_where_the_data_step_has_some(write, own_images):
    plan = plan_of(write(PIPELINE))
    files = dict(FILES, test='test.json', **(dict(test_images='test') if own_images else {}))
    state = finish(plan, data=files)
    config = plan.step('adapt', Path('adapt'), state).config
    val, test = (config[f'{loop}_dataloader'].dataset for loop in ('val', 'test'))
    assert (val.ann_file, val.data_prefix.img) == ('val.json', 'val')
    assert (test.ann_file, test.data_prefix.img) == ('test.json', 'test' if own_images else 'val')
    assert config.val_evaluator[0].ann_file == 'val.json'
    assert config.test_evaluator.ann_file == 'test.json'


def test_options_of_the_step_win_over_those_of_all(write):
    path = write(PIPELINE + "step_options = {'train_cfg.max_iters': 5}")
    plan = plan_of(path, seed=4)
    assert [plan.iterations(name) for name in plan.definitions] == [0, 5, 0, 7]
    state = finish(plan, data=FILES, label=dict(annotations='p'), adapt=dict(checkpoint='a'))
    student = plan.step('student', plan.work_dir / 'x', state).config
    assert student.train_cfg.max_iters == 7 and student.randomness.seed == 4
    assert student.load_from == 'step.pth'  # the step config's own
    adapt = plan.step('adapt', plan.work_dir / 'x', state).config
    assert adapt.train_cfg.max_iters == 5
    assert adapt.load_from == f'{plan.work_dir}/start.pth'


# ---- which steps train the student


@pytest.mark.parametrize(
    'name, students',
    [
        ('cast_toy.py', ['transfer', 'refine']),
        ('cast_cityscapes_single_gpu.py', ['transfer', 'refine']),
        ('baselines/cast_custom_baselines.py', ['supervised']),
        ('baselines/cast_toy_online.py', ['online', 'transfer_online', 'transfer', 'refine']),
        # Teachers alone, of which the last one labels nothing.
        ('cast_dsb2018_pseudo_label_options.py', ['adapt_self_training_confidence']),
    ],
)
def test_no_teacher_is_a_student(name, students):
    assert Plan(name).students() == students


def test_a_teacher_that_labels_nothing_is_no_student_either():
    options = {'steps.pseudo_label_2.checkpoint': '{foundation_teacher}'}
    assert Plan('cast_toy.py', cfg_options=options).students() == ['transfer', 'refine']
    options = {'steps.transfer': None, 'steps.refine': None, 'report': None, 'summary': None}
    assert Plan('cast_toy.py', cfg_options=options).students() == []


def test_a_student_may_have_the_teachers_network(write):
    assert plan_of(write(PIPELINE)).students() == ['student']


# ---- configs of one's own


def test_a_config_in_another_folder_inherits_a_shipped_pipeline(tmp_path):
    """Its own step configs win over the shipped ones of the same name, all others are shipped."""
    (tmp_path / 'mine.py').write_text("""
_base_ = 'mmcast::cast_toy.py'
variables = dict(student='my_student')
steps = dict(refine=dict(config='toy/toy_student_refine.py'))
""")
    (tmp_path / 'my_student_transfer.py').write_text(
        "_base_ = 'mmcast::toy/toy_student_transfer.py'\ntrain_cfg = dict(max_iters=5)"
    )
    plan = Plan(tmp_path / 'mine.py')
    assert list(plan.definitions) == list(Plan('cast_toy.py').definitions)
    assert plan.work_dir == Path('work_dirs/cast_toy')
    assert plan.iterations('transfer') == 5
    assert plan.iterations('refine') == Plan('cast_toy.py').iterations('refine')
    (tmp_path / 'toy').mkdir()
    shutil.copy(tmp_path / 'my_student_transfer.py', tmp_path / 'toy/toy_student_refine.py')
    assert Plan(tmp_path / 'mine.py').iterations('refine') == 5


def test_a_pipelines_own_module_is_found_beside_its_step_config(tmp_path):
    """In every process: one that gets the config from another has not read it."""
    (tmp_path / 'beside_the_config.py').write_text('VALUE = 3')
    (tmp_path / 'step.py').write_text("custom_imports = dict(imports=['beside_the_config'])")
    code = """
import pickle, sys, subprocess
from mmcast.configs import load_config
if len(sys.argv) > 1:
    pickle.dump(load_config(sys.argv[1]), sys.stdout.buffer)
else:
    from mmcast.configs import import_custom_modules
    config = pickle.load(sys.stdin.buffer)
    assert 'beside_the_config' not in sys.modules
    import_custom_modules(config)
    print(sys.modules['beside_the_config'].VALUE)
"""
    pickled = subprocess.run(
        [sys.executable, '-c', code, tmp_path / 'step.py'], capture_output=True, check=True
    ).stdout
    done = subprocess.run(
        [sys.executable, '-c', code], input=pickled, capture_output=True, check=True
    )
    assert done.stdout.strip() == b'3'
    (tmp_path / 'step.py').write_text("custom_imports = dict(imports=['not_there'])")
    with pytest.raises(CASTError, match="No module named 'not_there'; put the module next to"):
        Plan(_pipeline_of(tmp_path / 'step.py'))


def _pipeline_of(step: Path) -> Path:
    path = step.with_name('pipeline.py')
    path.write_text("steps = dict(a=dict(kind='test', config='step.py', checkpoint='x'))")
    return path


SWITCH = (
    PIPELINE.replace('variables = dict(', 'variables = dict(again=True, ')
    .replace(
        "    student=dict(kind='train'",
        """    label_again=dict(enabled='{again}', kind='pseudo_label', config='step.py',
                     checkpoint='{again_adapt.checkpoint}'),
    again_adapt=dict(enabled='{again}', instead='adapt', kind='train', config='step.py'),
    label_twice=dict(kind='pseudo_label', config='step.py', checkpoint='{again_adapt.checkpoint}'),
    student=dict(kind='train'""",
    )
    .replace("dict(adapt='teacher',", "dict(adapt='teacher', again_adapt='teacher again',")
)


def test_a_disabled_step_does_not_exist_and_another_stands_in_for_it(write):
    path = write(SWITCH.replace("step='adapt'", "step='again_adapt'"))
    enabled, disabled = (
        plan_of(path, cfg_options={'variables.again': value}) for value in (True, False)
    )
    assert enabled.needs('label_twice') == {'data', 'again_adapt'}
    assert disabled.needs('label_twice') == {'data', 'adapt'}
    assert set(enabled.definitions) - set(disabled.definitions) == {'label_again', 'again_adapt'}
    assert [row['step'] for row in enabled.rows] == ['adapt', 'again_adapt', 'student']
    assert [row['step'] for row in disabled.rows] == ['adapt', 'student']
    assert enabled.report_columns()[0]['checkpoint'] == '{again_adapt.checkpoint}'
    assert disabled.report_columns()[0]['checkpoint'] == '{adapt.checkpoint}'
    state = finish(disabled, data=FILES, adapt=dict(checkpoint='first.pth'))
    step = disabled.step('label_twice', disabled.work_dir, state)
    assert step.definition['checkpoint'] == 'first.pth'
    assert 'enabled' not in enabled.definitions['again_adapt']


@pytest.mark.parametrize(
    'old, new, message',
    [
        ("'{again}', instead", "'no', instead", 'enabled of step again_adapt is .no.; True runs'),
        ('again=True', 'again=1', 'variables.again is 1; True runs step label_again'),
        ('again=True', 'again=None', 'variables.again is None'),
        ("instead='adapt'", "instead='adopt'", "instead='adopt'; did you mean adapt"),
        ("instead='adapt'", "instead='label_again'", 'label_again stands in .* not enabled either'),
        (
            "instead='adapt', ",
            '',
            'label_twice uses .* again_adapt does not run, as variables.again',
        ),
        ("'{again}', instead", "'{agein}', instead", 'no variable agein; did you mean again'),
        ("'{again}', instead", "'{data.again}', instead", 'outputs of steps come too late'),
    ],
)
def test_switches_that_say_nothing_are_refused(write, old, new, message):
    text = SWITCH.replace('again=True', 'again=False') if 'again=' not in old else SWITCH
    assert old in text
    with pytest.raises(CASTError, match=message):
        plan_of(write(text.replace(old, new)))


def test_self_training_of_every_shipped_pipeline_can_be_left_out():
    """The student then learns from the labels of the teacher of 1a."""
    pipelines = sorted(shipped_configs().glob('cast_*.py'))
    whole = [path for path in pipelines if {'pseudo_label_2', 'refine'} <= {*names(path)}]
    assert len(whole) > 10
    for path in whole:
        plan = Plan(path, cfg_options={'variables.self_training': Typed('False')})
        assert not [name for name in plan.definitions if 'self_training' in name], path
        label = plan.definitions['pseudo_label_2']
        assert label['checkpoint'] == '{adapt_self_training.checkpoint}'
        assert 'adapt_labeled' in plan.needs('pseudo_label_2')


def test_an_option_for_a_step_that_does_not_run_is_refused(write):
    options = {'steps.again_adapt.load_from': 'other.pth'}
    assert plan_of(write(SWITCH), cfg_options=options)
    with pytest.raises(CASTError, match='again_adapt.load_from would do nothing: step again_ad'):
        plan_of(write(SWITCH), cfg_options=options | {'variables.again': False})
    for off in (
        {'steps.again_adapt.enabled': False},
        {'steps.again_adapt': dict(enabled=False)},
        {'steps.again_adapt.enabled': False, 'steps.again_adapt.instead': 'student'},
    ):
        assert 'again_adapt' not in plan_of(write(SWITCH), cfg_options=off).definitions
    toy = shipped_configs() / 'cast_toy.py'
    fraction = {'steps.folds.fraction': 0.3}
    with pytest.raises(CASTError, match='steps.folds.fraction would do nothing'):
        Plan(toy, cfg_options=fraction)
    assert Plan(toy, cfg_options=fraction | {'variables.threshold_folds': 3})
    without = {'variables.self_training': False}
    for folds in (3, 'val'):
        with pytest.raises(CASTError, match='thresholds_1.folds would do nothing'):
            Plan(toy, cfg_options=without | {'steps.thresholds_1.folds': folds})
    both = {'variables.threshold_folds': 3, 'steps.thresholds_1.folds': 0}
    assert {'thresholds_1', 'thresholds_2'} & {*Plan(toy, cfg_options=both).definitions} == {
        'thresholds_2'
    }


def test_a_step_that_is_asked_for_and_does_not_run_is_named_with_what_switches_it(write):
    """Not as one that there is not: the likeliest other name would be a wrong one."""
    plan = plan_of(write(SWITCH), cfg_options={'variables.again': False})
    for steps, rerun in ((['label_again'], []), ([], ['label_again'])):
        with pytest.raises(CASTError, match='label_again does not run, as variables.again is Fal'):
            plan.choose(steps, rerun)


def test_of_steps_that_stand_in_for_one_another_the_one_that_runs_is_used(write):
    """Rounds that are switched one by one, of which any may be left out."""
    third = "again_adapt=dict(enabled='{third}', instead='again_adapt', kind='train', "
    text = SWITCH.replace('again=True', 'again=True, third=False').replace(
        '    label_twice=', f"    third_{third}config='step.py'),\n    label_twice="
    )
    path = write(
        text.replace(
            "twice=dict(kind='pseudo_label', config='step.py', checkpoint='{",
            "twice=dict(kind='pseudo_label', config='step.py', checkpoint='{third_",
        )
    )
    for again, used in ((True, 'again_adapt'), (False, 'adapt')):
        plan = plan_of(path, cfg_options={'variables.again': again})
        assert plan.needs('label_twice') == {'data', used}
    circle = path.read_text().replace("instead='adapt'", "instead='third_again_adapt'")
    with pytest.raises(CASTError, match='stands in for step .* but is not enabled either'):
        plan_of(write(circle), cfg_options={'variables.again': False})


def test_a_step_may_be_taken_out_that_would_have_stood_in_for_one_that_nothing_uses(write):
    write(SWITCH.replace('again=True', 'again=False'), 'base.py')
    other = "steps = dict(again_adapt=dict(instead='label'), label=None, student=None"
    use = ", label_twice=dict(checkpoint='{start}'))"
    assert names(write(f"_base_ = './base.py'\n{other}{use}")) == ['data', 'adapt', 'label_twice']
    with pytest.raises(CASTError, match='again_adapt does not run.* and none stands in for it'):
        plan_of(write(f"_base_ = './base.py'\n{other})"))


def test_a_network_has_one_column_in_the_report(write):
    """Not a second one with the title of the step that it stands in for."""
    columns = "dict(title='again', step='again_adapt'), dict(title='A', step='adapt')"
    path = write(SWITCH.replace("dict(title='A', step='adapt')", columns))
    for again, titles in ((True, ['again', 'A', 'S']), (False, ['A', 'S'])):
        plan = plan_of(path, cfg_options={'variables.again': again})
        assert [column['title'] for column in plan.report_columns()] == titles


@pytest.mark.parametrize(
    'report, message',
    [
        ("columns=[dict(title='X')]", 'column X of the report lacks a step, or config and check'),
        ("columns=[dict(title='X', step='data')]", 'column X .* step data, which trains nothing'),
        ("columns=[dict(title='X', config='step.py', checkpoint='{no.x}')]", 'report uses .no.x'),
        ("img_dir='{dota.val}'", 'report uses {dota.val}, which is not known; did you mean data'),
        ("pseudo_labels=dict(hidden='{label_again.annotations}')", 'label_again does not run'),
    ],
)  # fmt: skip
def test_a_report_of_what_there_will_not_be_is_refused_before_anything_runs(write, report, message):
    path = write(SWITCH.replace('again=True', 'again=False') + f'report.update({report})\n')
    with pytest.raises(CASTError, match=message):
        plan_of(path)


def test_what_a_disabled_step_would_use_need_not_be_there(write):
    """The output of a function is known when it has run; here nothing would read it."""
    step = "off=dict(enabled=False, kind='train', config='step.py', load_from='{data.weights}'),"
    plan = plan_of(write(PIPELINE.replace('    adapt=', f'    {step}\n    adapt=')))
    plan.check_outputs(plan.definitions, finish(plan, data=FILES))


def test_a_step_may_decide_for_one_step_what_step_options_say_for_the_others(write):
    text = PIPELINE.replace("cfg_options={'train_cfg.max_iters': 7}", "cfg_options='{data.own}'")
    text += "step_options = {'train_cfg.max_iters': 5}"
    plan = plan_of(write(text))
    state = finish(plan, data=dict(FILES, own={'train_cfg.max_iters': 7}))
    plan.check_outputs(plan.definitions, state)
    numbers = [plan.iterations(name, state) for name in ('adapt', 'student')]
    assert numbers == [5, 7]
    plan = plan_of(
        write(text.replace("_from='{start}'", "_from='{start}', cfg_options='{data.own}'"))
    )
    with pytest.raises(
        CASTError, match='data decides it for adapt, student; change what that step'
    ):
        plan.check_outputs(plan.definitions, state)


def test_a_pipeline_of_which_no_step_would_run_is_refused(write):
    off = {f'steps.{name}.enabled': False for name in ('data', 'adapt', 'label', 'student')}
    with pytest.raises(CASTError, match='none of its steps would run'):
        plan_of(write(PIPELINE), cfg_options=off)


def test_steps_of_a_list_are_switched_too(write):
    path = write(
        "steps = [dict(name='a', kind='call', function='os.getcwd'),"
        " dict(name='b', enabled=False, instead='a', kind='call', function='os.getcwd'),"
        " dict(name='c', kind='call', function='os.path.join', kwargs=dict(a='{b.x}'))]\n"
        "summary = [dict(row='B', step='b'), dict(row='C', step='c')]"
    )
    plan = plan_of(path)
    assert list(plan.definitions) == ['a', 'c'] and plan.needs('c') == {'a'}
    assert plan.rows == [dict(row='C', step='c')]
