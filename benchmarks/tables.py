"""Tables of what each part of the method gives, over seeds: mean, spread, and the 95 % interval of
paired differences.

    python benchmarks/tables.py stages --data toy             each stage, the method without it
    python benchmarks/tables.py labels --data dsb2018         AP over the number of labels
    python benchmarks/tables.py losses --data toy --dry-run   what is there, what would run
    python benchmarks/tables.py samplers --data toy --seeds 0 1 2 3 4 --jobs 2
    python benchmarks/tables.py options --data toy            what is off by default, one at a time
    python benchmarks/tables.py summary cast_toy.py           the rows of any pipeline's summary

Rows of one seed have the same labeled images, start weights and order of batches. What rows and
tables share runs once. Finished steps are kept and an interrupted one resumes, as in pipelines; a
step that fails does not stop the others, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmcast.cli.errors import report_errors
from mmcast.errors import CASTError

TABLES = ('labels', 'stages', 'losses', 'samplers', 'options')
PERCENT = 'variables.percent'
FOLDS = 'variables.threshold_folds'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from mmcast.cli.options import add_config_options

    parser.add_argument('table', choices=[*TABLES, 'summary'])
    parser.add_argument('pipelines', nargs='*', help='of the table summary: pipeline configs')
    parser.add_argument('--data', help='toy (default), dsb2018, cityscapes_small or custom')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='SEED')
    parser.add_argument(
        '--rows',
        nargs='+',
        metavar='ROW',
        help='only these, by the step of each; of the table labels refine@5 for 5 percent',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/tables'),
        help='of runs and tables (default work_dirs/tables)',
    )
    parser.add_argument(
        '--choose-on',
        choices=['val', 'none'],
        help='read baselines at the checkpoint that is best there (default val), or none: the last',
    )
    parser.add_argument(
        '--report-on',
        choices=['test', 'val'],
        help='images of the figures (default test, which choose nothing, where the data have them)',
    )
    parser.add_argument(
        '--metric', default='segm_mAP', help='figure of the table (default segm_mAP, mask AP)'
    )
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time, with a thread each')
    parser.add_argument('--dry-run', action='store_true', help='list what is there and what not')
    parser.add_argument(
        '--rerun-changed',
        action='store_true',
        help='run steps again whose settings or inputs changed; their old folders are moved aside',
    )
    add_config_options(parser, 'variables.data_root=data/leaves, for the pipeline of every run')


@report_errors
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    args = parser.parse_args(arguments)
    if args.jobs < 1 or len(set(args.seeds)) < len(args.seeds) or min(args.seeds) < 0:
        parser.error('--jobs is at least 1, and --seeds are different numbers from 0')
    if bool(args.pipelines) != (args.table == 'summary'):
        parser.error('summary, and no other table, takes pipeline configs')
    if args.pipelines and (args.data or args.rows or args.choose_on or args.report_on):
        parser.error(
            'summary has the data, rows and checkpoints of its pipelines: it takes no --data, '
            '--rows, --choose-on or --report-on'
        )
    args.data, args.choose_on = args.data or 'toy', args.choose_on or 'val'
    command = ['benchmarks/tables.py', *(sys.argv[1:] if arguments is None else arguments)]
    problems: list[str] = []
    if args.table == 'summary':
        for pipeline in args.pipelines:
            problems += make_summary(pipeline, args, command)
    else:
        problems += make_table(args, command)
    if problems:
        raise CASTError(f'without a result: {"; ".join(problems)}')


def make_table(args: argparse.Namespace, command: Sequence[str]) -> list[str]:
    """Runs and writes one table; returns what has no result, and why."""
    from label_efficiency import plot
    from table_report import Results, read_row
    from table_rows import DATA_SETS, Steps, table_of

    from mmcast.spelling import hint

    if args.data not in DATA_SETS:
        raise CASTError(f'--data {args.data} is unknown; {hint(args.data, DATA_SETS)}')
    data = _with_percent(DATA_SETS[args.data], args)
    report_on = args.report_on or ('test' if data.reports_test else 'val')
    if report_on == 'test' and not data.reports_test:
        raise CASTError(f'--report-on test: {data.pipeline} has no images for it; give val')
    if args.choose_on == 'none' and report_on == 'val':
        raise CASTError(
            '--choose-on none: a baseline has the figures of its best checkpoint on the validation '
            'images; report on a test half, with --report-on test'
        )
    steps = Steps(data)
    table = table_of(steps, args.table)
    # One config, whatever rows and checkpoints are asked for: another call may be running with it.
    every = dict.fromkeys(row.step for row in table.rows)
    tests = {
        choose: {step: steps.test(step, choose) for step in every if data.reports_test}
        for choose in (True, False)
    }
    folder = args.work_dir / args.data
    config = folder / args.table / f'tables_{args.data}.py'
    steps.write(config, [*every, *tests[True].values(), *tests[False].values()])
    table = _with_rows(table, args, steps, report_on == 'val' and data.reports_test)
    made = dict.fromkeys(row.step for row in table.rows)
    reads = {
        step: tests[args.choose_on == 'val'][step] if report_on == 'test' else step for step in made
    }
    runs = _runs_of(args, data, table, reads, config, folder)
    if args.dry_run:
        print('\n'.join(_listing(runs.values())))
        return []
    problems = _run(list(runs.values()), args)
    rows: dict[str, dict[int, dict]] = {}
    for row in table.rows:
        percent = data.percent if row.percent is None else row.percent
        found = {
            seed: read_row(runs[percent, seed], row.step, reads[row.step], args.metric)
            for seed in args.seeds
        }
        rows[row.name] = {seed: one for seed, one in found.items() if one is not None}
    images = {
        str(percent): _count([run for (of, _), run in runs.items() if of == percent], 'labeled')
        for percent, _ in runs
    }
    reported, every = (_count(runs.values(), key) for key in (report_on, 'train'))
    results = Results(
        title=f'{args.table}: {args.data}' + _of_labels(args.table, data.percent),
        table=table,
        rows=rows,
        notes=_notes(args, report_on, reported, rows),
        facts=_facts(command, args, pipeline=data.pipeline, report_on=report_on)
        | dict(reported_images=reported, labeled_images=images, all_images=every),
    )
    usual = data.percent == DATA_SETS[args.data].percent
    _write(results, folder / (args.table if usual else f'{args.table}_{data.percent:g}percent'))
    if args.table == 'labels':
        paths = [folder / f'labels.{kind}' for kind in ('svg', 'png')]
        plot({args.data: results.content()}, paths)
        print(*paths, sep='\n')
    return problems + _without_figure(rows, args.metric)


def _with_rows(table, args: argparse.Namespace, steps, is_other_half: bool):
    """The rows that are asked for and can be had.

    Args:
        table: all rows.
        args: of the command.
        steps: those of the table.
        is_other_half: whether steps that test do so on images that are not reported on.

    Raises:
        CASTError: a row that is asked for is unknown, or of other images than the others.
    """
    if args.rows:
        table = table.only(args.rows)
    left_out = [row.name for row in table.rows if steps.steps[row.step]['kind'] == 'test']
    if left_out and is_other_half:
        said = f'--report-on val: {", ".join(left_out)} test on the other half'
        if args.rows:
            raise CASTError(f'{said}: leave them out of --rows, or report on test')
        print(f'{said}: left out')
        table = table.only([row.name for row in table.rows if row.name not in left_out])
    branches = [row.name for row in table.rows if '_without_' in row.step]
    if branches and (args.cfg_options or {}).get(FOLDS) not in (None, 'None'):
        raise CASTError(
            f'{FOLDS}: {branches[0]} would take thresholds that are chosen for the labels of '
            'another teacher; give --rows without such rows, or see the table options'
        )
    return table


def _with_percent(data, args: argparse.Namespace):
    """A data set with the percentage of labels of ``--cfg-options``, which names the work
    directories too.

    Raises:
        CASTError: it is no number, or the table has several of its own.
    """
    given = (args.cfg_options or {}).get(PERCENT)
    if given is None or data.percent is None:  # the pipeline has its own, or refuses it
        return data
    if args.table == 'labels':
        raise CASTError(
            f'{PERCENT}={given}: the table labels has rows of several percentages; choose some of '
            f'them with --rows, such as refine@{data.percents[0]:g}'
        )
    try:
        return replace(data, percent=float(given))
    except ValueError as error:
        raise CASTError(f'{PERCENT}={given}: give a number') from error


def _runs_of(args, data, table, reads, config: Path, folder: Path) -> dict[tuple, Any]:
    """The runs of a table by percent of the labels and seed."""
    from table_runs import Run

    wanted: dict[float | None, set[str]] = {}
    for row in table.rows:
        percent = data.percent if row.percent is None else row.percent
        wanted.setdefault(percent, set()).add(reads[row.step])
    runs = {}
    for seed in args.seeds:
        for percent, names in wanted.items():
            options = {key: str(value) for key, value in data.options.items()}
            name = f'seed{seed}'
            if percent is not None:
                options[PERCENT] = f'{percent:g}'
                name = f'{percent:g}percent_seed{seed}'
            given = args.cfg_options or {}
            options |= {key: value for key, value in given.items() if key != PERCENT}
            runs[percent, seed] = Run(
                f'{args.data} {name}', config, folder / name, seed, options, sorted(names)
            )
    return runs


def make_summary(pipeline: str, args: argparse.Namespace, command: Sequence[str]) -> list[str]:
    """Runs and writes the summary of a pipeline over seeds; returns what has no result."""
    from table_report import Results, label_table, read_row, summary_table
    from table_runs import Run, reads_test_images

    from mmcast.configs import find_config

    config = find_config(pipeline)
    folder, options = args.work_dir / config.stem, args.cfg_options or {}
    runs = {
        seed: Run(
            f'{config.stem} seed{seed}',
            config,
            folder / f'seed{seed}',
            seed,
            options,
        )
        for seed in args.seeds
    }
    if args.dry_run:
        print('\n'.join(_listing(runs.values())))
        return []
    problems = _run(list(runs.values()), args)
    table = summary_table(next(iter(runs.values())))
    rows, tested = {}, []
    for row in table.rows:
        found = {
            seed: read_row(run, run.plan.made_by(row.step), row.step, args.metric)
            for seed, run in runs.items()
        }
        rows[row.name] = {seed: one for seed, one in found.items() if one is not None}
        if any(reads_test_images(runs[seed], row.step) for seed in rows[row.name]):
            tested.append(row.step)
    labels = label_table(runs)
    results = Results(
        title=f'summary: {config.name}',
        table=table,
        rows=rows,
        notes=[*labels.lines, *_notes(args, 'val', None, rows, tested)],
        facts=_facts(command, args, pipeline=config.name, report_on='val')
        | dict(pseudo_labels=labels.content, rows_of_test_images=tested),
    )
    _write(results, folder / 'summary')
    return problems + _without_figure(rows, args.metric)


def _listing(runs) -> list[str]:
    from table_runs import listing

    return listing(list(runs))


def _run(runs: list, args: argparse.Namespace) -> list[str]:
    from table_runs import failures, run_all

    run_all(runs, args.jobs, args.rerun_changed)
    return failures(runs)


def _count(runs: Iterable[Any], key: str) -> int | None:
    """How many images a file of the data has, which is the same in all of these runs; None where
    none of them has it.
    """
    for run in runs:
        step = 'halves' if 'halves' in run.plan.definitions else 'data'
        path = run.state.outputs(step).get(key) if run.state.finished(step) else None
        if path:
            return len(json.loads(Path(path).read_text(encoding='utf-8'))['images'])
    return None


def _of_labels(table: str, percent: float | None) -> str:
    return '' if table == 'labels' or percent is None else f', {percent:g} % of the labels'


def _notes(
    args: argparse.Namespace,
    report_on: str,
    images: int | None,
    rows: Mapping,
    tested: Sequence[str] = (),
) -> list[str]:
    """What a reader must know of the figures.

    Args:
        args: of the command.
        report_on: ``test`` or ``val``.
        images: how many these are.
        rows: of the table.
        tested: rows of a summary that are of test images in place of ``report_on``.
    """
    commits = {
        one['versions'].get('commit') or 'unknown'
        for row in rows.values()
        for one in row.values()
        if one['versions']
    }
    sentences = _what_is_read(args, report_on, images)
    if tested:
        others = len(tested) < sum(map(bool, rows.values()))
        read = (
            f'Rows of the steps {", ".join(tested)} are of the test images, which chose nothing, '
        )
        read += 'and of the checkpoints that the pipeline names'
        sentences = (
            [f'{read}. Of the other rows:', *sentences]
            if others
            else [f'{args.metric} in percent.', f'{read}.']
        )
    seeds = ', '.join(map(str, args.seeds))
    sentences.append(f'± is the sample standard deviation over the seeds {seeds}.')
    if args.table != 'summary':
        sentences.append(
            'Differences are of pairs with the same seed, the interval is of their mean (Student).'
        )
    sentences += [
        "CPU minutes are those of a row's own training step, of seeds that were not resumed in it.",
        f'Commits: {", ".join(sorted(commits)) or "none"}.',
    ]
    return [' '.join(sentences)]


def _what_is_read(args: argparse.Namespace, report_on: str, images: int | None) -> list[str]:
    """Which metric, images and checkpoints the figures are of."""
    name = dict(test='test half', val='validation images')[report_on]
    number = f' ({images} images)' if images else ''
    best = 'Baselines are read at their best checkpoint on the validation images'
    if args.choose_on == 'none':
        read = 'All networks are read at their last checkpoint.'
    elif report_on == 'test':
        read = f'{best}, of which none is reported, the others at their last one.'
    else:
        read = f'{best}, which are those reported: that favours them. The others are read at their '
        read += 'last one.'
    return [f'{args.metric} in percent on the {name}{number}.', read]


def _facts(
    command: Sequence[str], args: argparse.Namespace, pipeline: str, report_on: str
) -> dict[str, Any]:
    import mmengine
    import torch

    from mmcast.environment import source_commit
    from mmcast.version import __version__

    return dict(
        table=args.table,
        pipeline=pipeline,
        command=f'python {shlex.join(command)}',
        commit=source_commit(),
        versions=dict(
            python=sys.version.split()[0],
            mmcast=__version__,
            mmengine=mmengine.__version__,
            torch=str(torch.__version__),
        ),
        metric=args.metric,
        seeds=args.seeds,
        choose_on=args.choose_on,
        report_on=report_on,
        options=dict(args.cfg_options or {}),
    )


def _write(results, stem: Path) -> None:
    """The table as Markdown and as JSON."""
    from mmcast.files import write_atomically

    text = results.markdown()
    print(f'\n{text}')
    for ending, content in (('.md', text), ('.json', json.dumps(results.content(), indent=1))):
        path = stem.with_name(stem.name + ending)
        write_atomically(path, content)
        print(path)


def _without_figure(rows: Mapping[str, Mapping[int, dict]], metric: str) -> list[str]:
    """Finished rows that have no such metric, or one that is no number."""
    return [
        f'{name}, seed {seed}: no finite {metric} among {", ".join(one["metrics"]) or "no metrics"}'
        for name, found in rows.items()
        for seed, one in found.items()
        if one['ap'] is None
    ]


if __name__ == '__main__':
    main()
