"""What the tables of benchmarks/tables.py have in their rows: data sets, steps, titles.

A data set has one pipeline for all its tables, a shipped one with the steps of every row beside its
own, so that rows and tables share what they can.
"""

from __future__ import annotations

import pprint
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmcast.configs import load_config
from mmcast.errors import CASTError
from mmcast.files import write_atomically
from mmcast.pipeline.templates import resolve
from mmcast.spelling import hint
from mmcast.training.overrides import nested

USUAL_PIXEL_WEIGHT = 0.1  # the paper's
PIXEL = 'model.pixel_contrast.loss_weight'
LOSS = 'model.pixel_contrast.loss'
SEMI = 'model.semi_train_cfg.semi_weight'
TEACHER = ('adapt_labeled', 'pseudo_label_1', 'adapt_self_training', 'pseudo_label_2')
STUDENT = ('transfer', 'refine')


@dataclass(frozen=True)
class DataSet:
    """A data set, and what is compared on it.

    Attributes:
        pipeline: a shipped pipeline config with the steps of ``_base_/pipelines/cast.py``.
        title: what it is called in figures.
        supervised: config of the student on labels alone, with as many iterations.
        online: config of the student with an online teacher alone, if there is one.
        all_at_once: the same on top of pseudo-labels.
        percents: of the labels, in the table ``labels``; none where labels cannot be taken away.
        percent: of the labels, in the others; None: as the pipeline says.
        all_labels: whether the labels of all training images are known.
        halved: validation is divided into two halves, to choose on and to report on, where the data
            step does not do so itself.
        reports_test: results are reported on images that choose nothing.
        options: of the pipeline, dotted key -> value.
    """

    pipeline: str
    title: str
    supervised: str
    online: str | None = None
    all_at_once: str | None = None
    percents: tuple[float, ...] = ()
    percent: float | None = 10
    all_labels: bool = True
    halved: bool = True
    reports_test: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


DATA_SETS = dict(
    toy=DataSet(
        'cast_toy.py',
        title='Toy Cityscapes',
        supervised='baselines/toy_student_supervised.py',
        online='baselines/toy_student_online.py',
        all_at_once='baselines/toy_student_online_pseudo.py',
        percents=(5, 10, 30),
        # Twice the images of validation, of which the first 60 are those of cast_toy.py.
        options={
            'variables.data_root': 'data/toy_cityscapes_tables',
            'steps.data.kwargs.num_val': 120,
        },
    ),
    dsb2018=DataSet(
        'cast_dsb2018.py',
        title='DSB2018',
        supervised='baselines/dsb2018_student_supervised.py',
        percents=(1, 2.5, 10),  # 3, 8 and 33 images
    ),
    cityscapes_small=DataSet(
        'cast_cityscapes_small.py',
        title='Cityscapes at 320x160',
        supervised='baselines/cityscapes_small_student_supervised.py',
        online='baselines/cityscapes_small_student_online.py',
        all_at_once='baselines/cityscapes_small_student_online_pseudo.py',
        percents=(2, 5, 10, 30),
        halved=False,
    ),
    custom=DataSet(
        'cast_custom.py',
        title='custom data',
        supervised='baselines/custom_student_supervised.py',
        percent=None,
        all_labels=False,
        halved=False,
        reports_test=False,
    ),
)


@dataclass(frozen=True)
class Row:
    """A row of a table: the network that a step left.

    Attributes:
        title: what stands in the table.
        step: its name in the pipeline.
        percent: of the labels, None for the table's.
    """

    title: str
    step: str
    percent: float | None = None

    @property
    def name(self) -> str:
        return self.step if self.percent is None else f'{self.step}@{self.percent:g}'


@dataclass(frozen=True)
class Difference:
    """A comparison in pairs: of the rows named ``plus`` and ``minus``, with the same seed."""

    title: str
    plus: str
    minus: str


@dataclass
class Table:
    """The rows of a table, and what is compared.

    Attributes:
        rows, differences: as they stand there.
        way: names of three rows: how far on the way from the first to the last is the second?
    """

    rows: list[Row] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    way: list[tuple[str, str, str]] = field(default_factory=list)

    def only(self, names: Sequence[str]) -> Table:
        """Some of the rows, and the differences between these.

        Raises:
            CASTError: there is no such row.
        """
        known = [row.name for row in self.rows]
        for name in names:
            if name not in known:
                raise CASTError(f'--rows {name}: the table has no such row; {hint(name, known)}')
        return Table(
            [row for row in self.rows if row.name in names],
            [item for item in self.differences if {item.plus, item.minus} <= set(names)],
            [way for way in self.way if set(way) <= set(names)],
        )

    def add(self, title: str, step: str, **against: str) -> None:
        """A row, and its differences to other rows: name -> title of the difference."""
        self.rows.append(Row(title, step))
        for other, what in against.items():
            self.differences.append(Difference(what, step, other))


class Steps:
    """The steps of a data set's pipeline: those of the shipped one, and those of all tables.

    Args:
        data: the data set.
    """

    def __init__(self, data: DataSet) -> None:
        self.data = data
        self.base = load_config(data.pipeline)
        shipped = self.base.to_dict()['steps']
        self.steps = {name: step for name, step in shipped.items() if step is not None}
        self.shipped = set(self.steps)
        if data.halved:
            kwargs = dict(files='{data}', out_dir='{work_dir}/halves')
            self.steps['halves'] = dict(
                kind='call', function='mmcast.coco.splits.halve_validation', kwargs=kwargs
            )

    def write(self, path: Path, wanted: Sequence[str]) -> None:
        """Writes the pipeline with the wanted steps and those that they need, if it is not there
        already.
        """
        needed = {'halves', *wanted}
        for name in reversed(self.steps):  # a step's templates are of those before it
            if name in needed:
                needed |= _templates(self.steps[name])
        content = f'# Made by benchmarks/tables.py.\n_base_ = {"mmcast::" + self.data.pipeline!r}\n'
        content += (
            'variables = dict(self_training=True)\n'  # some rows need it, whatever is shipped
        )
        if self.data.halved:
            content += "datasets = '{halves}'\n"
        added = {name: self.steps[name] for name in self.steps if name in needed - self.shipped}
        content += f'steps = {pprint.pformat(added, width=100, sort_dicts=False)}\n'
        if not path.exists() or path.read_text(encoding='utf-8') != content:
            write_atomically(path, content)

    def train(self, name: str, config: str, **settings: Any) -> str:
        """A training step from the student's start weights; returns its name."""
        start = dict(kind='train', config=config, load_from='{pretrained_student}')
        self.steps[name] = start | settings
        return name

    def branch(
        self, names: Sequence[str], suffix: str, changes: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Copies of steps that use one another's outputs, with changes.

        Args:
            names: of the steps.
            suffix: of the copies' names.
            changes: by the name of a step, settings to replace; ``cfg_options`` are merged.
        """
        renamed = {name: f'{name}_{suffix}' for name in names}

        def rename(template: str) -> str:
            step, dot, output = template.partition('.')
            return f'{{{renamed.get(step, step)}{dot}{output}}}'

        for name in names:
            step = resolve(self.steps[name], rename) | dict(changes.get(name, {}))
            step.pop('after', None)
            if isinstance(changes.get(name, {}).get('cfg_options'), Mapping):
                step['cfg_options'] = self.options(name) | dict(changes[name]['cfg_options'])
            self.steps[renamed[name]] = step

    def variant(self, name: str, options: Mapping[str, Any]) -> str:
        """The name of a step with other options: of the step itself where they are its own, of a
        copy elsewhere.
        """
        current = self.config(name)
        other = {key: value for key, value in options.items() if _get(current, key) != value}
        if not other:
            return name
        words = '_'.join(f'{key.rsplit(".", 1)[-1]}_{value}' for key, value in other.items())
        suffix = ''.join(letter if letter.isalnum() else '_' for letter in words)
        if f'{name}_{suffix}' not in self.steps:
            self.branch([name], suffix, {name: dict(cfg_options=_with_type(options))})
        return f'{name}_{suffix}'

    def config(self, name: str) -> Config:
        """The config of a step, with the options that are known before anything runs."""
        config = load_config(self._filled_in(self.steps[name]['config']))
        config.merge_from_dict(nested(self.options(name)))
        return config

    @property
    def pixel_weight(self) -> float:
        """Of the pixel loss in the transfer step where it is on."""
        return _get(self.config('transfer'), PIXEL) or USUAL_PIXEL_WEIGHT

    @property
    def other_pixel_loss(self) -> str:
        """What the method's copy with the other pixel loss is called: off where it is on, and on
        where it is off.
        """
        on = _get(self.config('adapt_labeled'), PIXEL)
        return 'without_pixel_loss' if on else 'with_pixel_loss'

    def options(self, name: str) -> dict[str, Any]:
        """The ``cfg_options`` of a step.

        Raises:
            CASTError: they are what another step left.
        """
        found = self._filled_in(self.steps[name].get('cfg_options') or {})
        if isinstance(found, str):
            raise CASTError(
                f'{self.data.pipeline}: the options of step {name} are known when {found} has run, '
                'so that no table can change one of them'
            )
        return dict(found)

    def _filled_in(self, value: Any) -> Any:
        variables = self.base.get('variables', {})

        def lookup(name: str) -> Any:
            return self._filled_in(variables[name]) if name in variables else f'{{{name}}}'

        return resolve(value, lookup)

    def checkpoint(self, name: str, choose: bool) -> str:
        """The output of a training step that a row reads: its best checkpoint, where there is one
        and ``choose`` says so, else its last.
        """
        hook = self.config(name).get('default_hooks', {}).get('checkpoint', {})
        return 'best_checkpoint' if choose and hook.get('save_best') else 'checkpoint'

    def test(self, name: str, choose: bool) -> str:
        """The name of the step that tests what a step left; of the step itself if it is a test."""
        step = self.steps[name]
        if step['kind'] != 'train':
            return name
        output = self.checkpoint(name, choose)
        kept = {key: step[key] for key in ('config', 'cfg_options', 'transforms') if key in step}
        tested = f'{name}_test' + ('_last' if output == 'checkpoint' and not choose else '')
        checkpoint = f'{{{name}.{output}}}'
        if self.steps.get(tested, {}).get('checkpoint') == checkpoint:  # the pipeline's own
            return tested
        self.steps[tested] = dict(kind='test', after=name, checkpoint=checkpoint, **kept)
        return tested


def figure_title(metric: str) -> str:
    """What a metric is called in heads and figures."""
    return 'mask AP' if metric.rpartition('/')[2] == 'segm_mAP' else metric


def _templates(value: Any) -> set[str]:
    """The names of steps and variables in the templates of a step."""
    found: set[str] = set()

    def note(template: str) -> str:
        found.add(template.partition('.')[0])
        return ''

    resolve(value, note)
    return found


def _get(config: Config, key: str) -> Any:
    """The value at a dotted key of a config; of an argument of the pixel loss, its default."""
    node: Any = config.to_dict()
    for part in key.split('.'):
        if not isinstance(node, Mapping) or part not in node:
            last = key.rpartition('.')[2]
            return _loss_defaults().get(last) if key.startswith(f'{LOSS}.') else None
        node = node[part]
    return node


def _loss_defaults() -> dict[str, Any]:
    import inspect

    from mmcast.models.losses.pixel_contrastive_loss import PixelContrastiveLoss

    parameters = inspect.signature(PixelContrastiveLoss).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def _with_type(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the type of the pixel loss, which a config need not name."""
    of_loss = any(key.startswith(f'{LOSS}.') for key in options)
    return ({f'{LOSS}.type': 'PixelContrastiveLoss'} if of_loss else {}) | dict(options)


# The tables. A step has the same name in all of them.


def _add_branches(steps: Steps) -> None:
    """What more than one table reads: baselines, and the method with a part less."""
    data = steps.data
    steps.train('supervised', data.supervised)
    if data.all_labels:
        steps.train('supervised_all', data.supervised, labeled='{data.train}')
    if data.online:
        steps.train('online', data.online)
    if data.all_at_once:
        labels = '{pseudo_label_2.annotations}'
        steps.train('all_at_once', data.all_at_once, pseudo_labels=labels)
    steps.branch(
        STUDENT,
        'without_self_training',
        dict(transfer=dict(pseudo_labels='{pseudo_label_1.annotations}')),
    )
    if 'zero_shot' in steps.shipped:  # else no teacher knows the classes from the start
        given = steps.steps['zero_shot']
        start = {key: given[key] for key in ('config', 'checkpoint', 'cfg_options') if key in given}
        steps.branch(['pseudo_label_1'], 'without_adaptation', dict(pseudo_label_1=start))
        annotations = '{pseudo_label_1_without_adaptation.annotations}'
        steps.branch(STUDENT, 'without_adaptation', dict(transfer=dict(pseudo_labels=annotations)))
    other = steps.other_pixel_loss
    weight = 0 if other == 'without_pixel_loss' else USUAL_PIXEL_WEIGHT
    changed = {name: dict(cfg_options={PIXEL: weight}) for name in (*TEACHER, 'transfer')}
    steps.branch([*TEACHER, *STUDENT], other, changed)


def labels(steps: Steps) -> Table:
    """AP over the number of labels: the student on them alone, of CAST, and on all labels."""
    table = Table()
    for percent in steps.data.percents:
        for step, title in (('supervised', 'supervised'), ('refine', 'CAST, refined')):
            table.rows.append(Row(f'{title}, {percent:g} % of labels', step, percent))
    for percent in steps.data.percents:
        cast, alone = (f'{step}@{percent:g}' for step in ('refine', 'supervised'))
        table.differences.append(Difference(f'CAST - supervised, {percent:g} %', cast, alone))
        table.way.append((alone, cast, 'supervised_all'))
    table.rows.append(Row('supervised, all labels', 'supervised_all'))
    return table


def stages(steps: Steps) -> Table:
    """What each stage of the method adds."""
    table, there = Table(), steps.steps
    if 'zero_shot' in there:
        table.add('teacher, zero-shot', 'zero_shot')
    adapted = dict(zero_shot='adaptation on labels: 1a - zero-shot') if 'zero_shot' in there else {}
    table.add('teacher, adapted on labels (1a)', 'adapt_labeled', **adapted)
    table.add(
        'teacher, self-trained (1b)',
        'adapt_self_training',
        adapt_labeled='self-training of the teacher: 1b - 1a',
    )
    table.add('student, supervised', 'supervised')
    table.add('student, transferred (2)', 'transfer', supervised='transferred - supervised')
    table.add(
        'student, refined (3)',
        'refine',
        supervised='CAST: refined - supervised',
        adapt_self_training='refined student - its teacher (1b)',
        transfer='refinement: refined - transferred',
    )
    for branch in ('without_adaptation', 'without_self_training', steps.other_pixel_loss):
        how, _, part = branch.partition('_')
        words = part.replace('_', ' ').replace('self t', 'self-t')
        for step, title in zip(STUDENT, ('transferred', 'refined')):
            if f'{step}_{branch}' in there:
                table.rows.append(Row(f'student, {title}, {how} {words}', f'{step}_{branch}'))
        if f'refine_{branch}' in there:
            pair = ['refine', f'refine_{branch}']
            if how == 'with':
                pair.reverse()
            less = 'refined - without' if how == 'without' else 'with - refined'
            table.differences.append(Difference(f'{words}: {less}', *pair))
    for step, title in (('online', 'online teacher alone'), ('all_at_once', 'all at once')):
        if step in there:
            table.rows.append(Row(f'student, {title}', step))
            table.differences.append(Difference(f'refined - {title}', 'refine', step))
    if 'supervised_all' in there:
        table.add('student, supervised, all labels', 'supervised_all')
        table.differences.append(
            Difference('what is left: all labels - refined', 'supervised_all', 'refine')
        )
        table.way.append(('supervised', 'refine', 'supervised_all'))
    return table


def losses(steps: Steps) -> Table:
    """The weights of the losses, in the transfer step: same start and pseudo-labels."""
    table, weight = Table(), steps.pixel_weight
    semi = _get(steps.config('transfer'), SEMI)

    def variant(semi_weight: float, pixel_weight: float) -> str:
        return steps.variant('transfer', {SEMI: semi_weight, PIXEL: pixel_weight})

    both, plain, alone, neither = (
        variant(*weights) for weights in ((semi, weight), (semi, 0), (0.0, weight), (0.0, 0))
    )
    table.add('student, supervised', 'supervised')
    table.add('transferred, labels alone', neither)
    table.add('pixel loss alone', alone, **{neither: 'pixel loss alone - labels alone'})
    table.add('pseudo-labels alone', plain, **{neither: 'pseudo-labels alone - labels alone'})
    table.add(
        'pseudo-labels and pixel loss',
        both,
        **{plain: 'pixel loss: both - pseudo-labels alone', alone: 'both - pixel loss alone'},
    )
    for factor in (0.1, 5):
        name = variant(semi, round(factor * weight, 6))
        title = f'weight of the pixel loss {factor * weight:g} in place of {weight:g}'
        table.add(title, name, **{plain: f'pixel loss at {factor * weight:g}: with - without'})
    for value in (0.5, 2.0):
        name = variant(value, weight)
        title = f'weight of the pseudo-labels {value:g} in place of {semi:g}'
        table.add(title, name, **{both: f'weight {value:g} - {semi:g}'})
    other = steps.other_pixel_loss
    for step, title in (('adapt_labeled', '1a'), ('adapt_self_training', '1b')):
        pair = [step, f'{step}_{other}']
        table.add(f'teacher, {title}', step)
        table.add(f'teacher, {title}, {other.replace("_", " ")}', pair[1])
        if other == 'with_pixel_loss':
            pair.reverse()
        table.differences.append(Difference(f'pixel loss in {title}: with - without', *pair))
    return table


def samplers(steps: Steps) -> Table:
    """Which negatives the pixel loss gets, in the transfer step: same start and pseudo-labels."""
    table, on = Table(), {PIXEL: steps.pixel_weight}
    plain = steps.variant('transfer', {PIXEL: 0})
    fusion = steps.variant('transfer', on | {f'{LOSS}.sampling': 'fusion'})
    table.add('no pixel loss', plain)
    kinds = {
        'negatives by mask and class (fusion)': dict(sampling='fusion'),
        'by mask': dict(sampling='mask'),
        'by class': dict(sampling='class'),
        'uniform': dict(sampling='uniform'),
        'their expectation': dict(negatives='expected'),
        '20 in place of 200': dict(num_negatives=20),
        '512 anchors, uniform': dict(num_anchors=512),
        '512 anchors, by instance': dict(num_anchors=512, anchor_sampling='instance'),
        'temperature 0.07 throughout': dict(temperature=0.07),
    }
    for title, settings in kinds.items():
        options = {f'{LOSS}.{key}': value for key, value in settings.items()}
        name = steps.variant('transfer', on | options)
        against = {plain: f'{title} - no pixel loss'}
        if name != fusion:
            against[fusion] = f'{title} - fusion'
        table.add(title, name, **against)
    return table


def options(steps: Steps) -> Table:
    """What is off by default, one at a time, in the transfer step: same start and teacher."""
    table = Table()
    table.add('student, transferred', 'transfer')

    def add(title: str, suffix: str, names: Sequence[str], **changes: Mapping[str, Any]) -> None:
        steps.branch(names, suffix, changes)
        table.add(title, f'transfer_{suffix}', transfer=f'{title} - the step unchanged')

    labels = steps.steps['pseudo_label_2']
    shipped = bool(labels.get('flip')), [float(scale) for scale in labels.get('scales') or [1]]
    views = {
        'one view': (False, [1.0]),
        'image and mirror': (True, [1.0]),
        'flip and three scales': (True, [0.75, 1.0, 1.25]),
    }
    for title, (flip, scales) in views.items():
        if (flip, scales) != shipped:
            looks = dict(flip=flip, scales=scales)
            suffix = title.replace(' ', '_')
            add(f'labels: {title}', suffix, ['pseudo_label_2', 'transfer'], pseudo_label_2=looks)
    folds = dict(folds=3)
    add(
        'thresholds of three folds',
        'chosen_thresholds',
        ['folds', 'thresholds_2', 'transfer'],
        folds=folds,
        thresholds_2=folds,
    )
    for name, prob in dict(copy_paste=0.5, mixup=0.5, mosaic=0.25).items():
        title = f'{name.replace("_", "-")}, {prob:g}'
        add(title, name, ['transfer'], transfer=dict(mixing={name: dict(prob=prob)}))
    average = {'default_hooks.ema.type': 'EMAHook', 'default_hooks.ema.momentum': 0.002}
    add('average of weights', 'ema', ['transfer'], transfer=dict(cfg_options=average))
    longer = 2 * steps.config('transfer').train_cfg.max_iters
    length = {f'train_cfg.{key}': longer for key in ('max_iters', 'val_interval')}
    add(f'{longer} iterations', 'longer', ['transfer'], transfer=dict(cfg_options=length))
    return table


def table_of(steps: Steps, name: str) -> Table:
    """A table of a data set; its steps are added to ``steps``.

    Raises:
        CASTError: the data set cannot have it.
    """
    if name == 'labels' and not steps.data.percents:
        raise CASTError(
            f'{steps.data.pipeline} has the labels of its labeled images alone, so that there is '
            'no curve over their number: choose stages, losses, samplers or options'
        )
    _add_branches(steps)
    tables = dict(labels=labels, stages=stages, losses=losses, samplers=samplers, options=options)
    return tables[name](steps)
