"""The page at the end of a pipeline: one HTML file that holds everything, and a picture for a
README.
"""

import io
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from mmcast.data.config_data import pseudo_labeled_data
from mmcast.errors import CASTError
from mmcast.files import sha256_of_file, write_atomically
from mmcast.locks import hold_work_dir
from mmcast.pipeline.held_out import reading_options
from mmcast.pipeline.pipeline import PipelineRun
from mmcast.pseudo_labels.selection import choose_thresholds
from mmcast.pseudo_labels.store import read_pseudo_labels
from mmcast.reports.html import data_uri, percent, render
from mmcast.reports.label_efficiency import other_points, picture, write_points
from mmcast.reports.model_card import write_student
from mmcast.reports.overlays import make_overlays, write_contact_sheet
from mmcast.reports.pseudo_labels import inspect_pseudo_labels
from mmcast.reports.summary import COLUMNS, cell, summary_rows, write_summary
from mmcast.training.curves import Curves, read_curves
from mmcast.training.distributed import say


def write_reports(run: PipelineRun) -> None:
    """The summary table of a pipeline and, once every step is finished, its report and exported
    student.

    Raises:
        CASTError: the work directory is in use, or something that the report asks for is missing.
    """
    with hold_work_dir(run.plan.work_dir):
        rows = summary_rows(run)
        if rows:
            say(write_summary(run.plan.work_dir, rows))
        if run.unfinished:
            say(
                f'not finished: {" ".join(run.unfinished)}; the report is written when all steps '
                'are'
            )
            return
        say(f'report: {write_report(run, rows)}')
        try:
            folder = write_student(run, rows)
            if folder:
                say(f'student and model card: {folder}')
        except CASTError as error:  # the results are there all the same
            say(f'warning: no student was exported: {error}')


def write_report(run: PipelineRun, rows: Sequence[dict]) -> Path:
    """Writes report.html and, where the pipeline's ``report`` asks for images, report.png.

    Args:
        run: one of which every step is finished.
        rows: of the summary table.

    Returns:
        The path of the page. It needs no other file, and links that of ``write_inspection`` next to
        it.
    """
    inspection = write_inspection(run)
    overlays = make_overlays(run)
    if overlays:
        write_contact_sheet(overlays, run.plan.work_dir / 'report.png')
    page = render(
        Path(__file__).with_name('run.html.j2'),
        title=f'{run.plan.path.stem}, seed {run.plan.config.get("seed")}',
        rows=rows,
        columns=COLUMNS,
        cell=cell,
        overlays=overlays,
        label_efficiency=_label_efficiency(run, rows),
        decisions=run.decisions,
        inspection=inspection,
        percent=percent,
        curves=_curve_images(run),
        environment=_environment(),
        steps=[_step_line(run, name) for name in run.plan.definitions],
    )
    path = run.plan.work_dir / 'report.html'
    write_atomically(path, page)
    return path


def _label_efficiency(run: PipelineRun, rows: Sequence[dict]) -> dict | None:
    """A picture of AP over the number of labels, of this run and of the pipeline's
    ``report.other_runs``, with notes; None where the run has no point of its own.
    """
    points = write_points(run, rows)
    if not points:
        return None
    folders = run.plan.config.get('report', {}).get('other_runs') or []
    folders = run.resolve(
        [folders] if isinstance(folders, str) else list(folders), 'report.other_runs'
    )
    others, notes = other_points(folders, points)
    for note in notes:
        say(f'label efficiency: {note}')
    return dict(picture=picture([*points, *others]), notes=notes)


def write_inspection(run: PipelineRun) -> dict | None:
    """Writes pseudo_labels.html and pseudo_labels.json about all generations of pseudo-labels, if
    any.

    The pipeline's ``report.pseudo_labels`` may have what ``inspect_pseudo_labels`` takes:
    ``labeled``, ``hidden``, ``score_thr`` ...; None says that there is no such page. Thresholds
    that it has not are those of the last step that trains on the last file. Steps that
    label other images than the last one are not on the page. It is not made again while its inputs
    are the same.

    Returns:
        The content of pseudo_labels.json.
    """
    definitions = {
        name: run.definition(name)
        for name, definition in run.plan.definitions.items()
        if definition['kind'] == 'pseudo_label'
    }
    options = run.plan.config.get('report', {}).get('pseudo_labels', {})
    if not definitions or options is None:
        return None
    *_, last = definitions.values()
    stores = {
        name: run.state.outputs(name)['annotations']
        for name, definition in definitions.items()
        if all(definition.get(key) == last.get(key) for key in ('ann_file', 'img_dir', 'limit'))
    }
    options = as_trained_on(run, [*stores.values()][-1]) | run.resolve(
        dict(options), 'report.pseudo_labels'
    )
    files = [*stores.values(), *(options[key] for key in ('labeled', 'hidden') if key in options)]
    inputs = dict(options, stores=stores, sha256=[sha256_of_file(path) for path in files])
    page, json_file = (run.plan.work_dir / f'pseudo_labels.{kind}' for kind in ('html', 'json'))
    if page.exists() and json_file.exists():
        found = json.loads(json_file.read_text(encoding='utf-8'))
        if found.get('inputs') == inputs:
            return found
    report = inspect_pseudo_labels(stores, page, img_dir=last['img_dir'], **options)
    report['inputs'] = inputs
    write_atomically(json_file, json.dumps(report, indent=1))
    return report


def as_trained_on(run: PipelineRun, path: str) -> dict:
    """Options of ``inspect_pseudo_labels`` with which the labels of a file that count as used are
    those that the last step trains on that reads it; none if no step does.
    """
    readers = [
        name
        for name, definition in run.plan.definitions.items()
        if definition['kind'] == 'train' and run.definition(name).get('pseudo_labels') == path
    ]
    if not readers:
        return {}
    config = run.plan.step(readers[-1], run.state.folder(readers[-1]), run.state).config
    try:
        options = reading_options(config)
    except CASTError:  # several data sets read files, each in its own way
        return {}
    options.pop('resolve_overlaps')
    dataset = pseudo_labeled_data(config)[0]
    if dataset.get('thresholds_from'):
        content = read_pseudo_labels(path)
        ids = {category['name']: category['id'] for category in content['categories']}
        given = dict(score=options['score_thr'])
        chosen, _ = choose_thresholds(content, ids, given, dataset['thresholds_from'], path)
        options['score_thr'] = {name: chosen['score'][ids[name]] for name in ids}
    return options


def _curve_images(run: PipelineRun) -> dict[str, str]:
    """A picture of the learning curves (data URI) for each step that logged any."""
    curves = {name: read_curves(run.state.folder(name)) for name in run.plan.definitions}
    return {name: _plot(logged) for name, logged in curves.items() if _losses(logged)}


def _losses(curves: Curves) -> dict[str, list]:
    """The curves worth a line: losses, but not those of each single decoder layer (d0.loss_cls
    ...).
    """
    return {key: points for key, points in curves.items() if 'loss' in key and '.' not in key}


def _plot(curves: Curves) -> str:
    """Losses and scores and, where they were logged, what the pixel loss does (the paper's Figure
    3), and how much an online teacher labels.
    """
    scores = {
        key: points for key, points in curves.items() if key.endswith(('segm_mAP', 'segm_mAP_50'))
    }
    panels = {'loss': _losses(curves), 'mask AP': scores}
    for prefix, label in (
        ('pxl_', 'pixel loss: cosines, fractions'),
        ('online_', 'online teacher: labels, images'),
    ):
        found = {
            key.removeprefix(prefix): points
            for key, points in curves.items()
            if key.startswith(prefix)
        }
        if found:
            panels[label] = found
    figure = Figure(figsize=(5 * len(panels), 3.2), layout='constrained')
    for axis, (label, lines) in zip(figure.subplots(1, len(panels)), panels.items()):
        for key, points in lines.items():
            axis.plot(
                *zip(*points), label=key, linewidth=1, marker='.' if len(points) < 20 else None
            )
        axis.set(xlabel='iteration', ylabel=label)
        if lines:
            axis.legend(fontsize='x-small')
    buffer = io.BytesIO()
    figure.savefig(buffer, format='svg')
    return data_uri(buffer.getvalue(), 'svg+xml')


def _step_line(run: PipelineRun, name: str) -> dict:
    record, definition = run.state.records[name], run.plan.definitions[name]
    memory, versions = (
        ', '.join(f'{key} {value}' for key, value in record[field].items())
        for field in ('peak_memory_mb', 'versions')
    )
    source = definition.get('config') or definition['function']
    return dict(
        name=name,
        kind=definition['kind'],
        config=source,
        minutes=record['seconds'] / 60,
        memory=memory,
        versions=versions,
    )


def _environment() -> dict[str, str]:
    device = f'CPU (threads: {torch.get_num_threads()})'
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    return dict(device=device, machine=platform.machine(), python=platform.python_version())
