"""The point of a run on the curve of AP over the number of labels, for its report."""

import io
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from mmengine.config import Config

from mmcast.data.config_data import labeled_data, tested_file
from mmcast.errors import CASTError
from mmcast.files import sha256_of_file, write_atomically
from mmcast.pipeline.pipeline import PipelineRun
from mmcast.pipeline.plan import Plan
from mmcast.reports.html import data_uri, plot_text

FILE = 'label_efficiency.json'


def write_points(run: PipelineRun, rows: Iterable[dict]) -> list[dict]:
    """Stores the points of a run as ``label_efficiency.json``, for the reports of other runs.

    Args:
        run: one of which every step is finished.
        rows: of the summary table.

    Returns:
        A dict for each row whose network learned from labels and has an AP, of those that
        :func:`final_steps` names: ``row``, ``step``, ``mask_ap`` (percent), ``images`` and
        ``objects``, the numbers of what it learned from, and the SHA-256 of two label files:
        ``labels``, that of these, and ``tested_on``.
    """
    final = final_steps(run.plan)
    points = [
        dict(row=row['row'], step=row['step'], mask_ap=row['mask_ap'], **facts)
        for row in rows
        if row['mask_ap'] is not None
        and run.plan.made_by(row['step']) in final
        and (facts := _facts(run, row['step']))
    ]
    content = dict(pipeline=run.plan.path.name, seed=run.plan.config.get('seed'), points=points)
    write_atomically(run.plan.work_dir / FILE, json.dumps(content, indent=1))
    return points


def final_steps(plan: Plan) -> set[str]:
    """The training steps whose networks a pipeline is about: its students and baselines, from
    which no other step starts, and the teacher of its last pseudo-labels.
    """
    kinds = {name: definition['kind'] for name, definition in plan.definitions.items()}
    trained = {name for name, kind in kinds.items() if kind == 'train'}
    used = {other for name, kind in kinds.items() if kind != 'test' for other in plan.needs(name)}
    labeling = [name for name, kind in kinds.items() if kind == 'pseudo_label']
    teachers = plan.needs(labeling[-1]) if labeling else set()
    return trained & (teachers | (trained - used))


def _facts(run: PipelineRun, step: str) -> dict[str, Any] | None:
    """From what the network of a step learned, and on what it was tested; None where its configs do
    not say.
    """
    made = run.plan.made_by(step)
    configs = [_config(run, name) for name in (made, step)]
    tested = tested_file(configs[1], 'val' if made == step else 'test')
    try:
        labels, _ = labeled_data(configs[0])
    except CASTError:  # those of no file, or of several
        return None
    if not tested or not Path(labels).is_file() or not Path(tested).is_file():
        return None
    content = json.loads(Path(labels).read_text(encoding='utf-8'))
    objects = [one for one in content.get('annotations', []) if not one.get('iscrowd')]
    return dict(
        images=len(content['images']),
        objects=len(objects),
        labels=sha256_of_file(labels),
        tested_on=sha256_of_file(tested),
    )


def _config(run: PipelineRun, name: str) -> Config:
    return run.plan.step(name, run.state.folder(name), run.state).config


def other_points(
    folders: Sequence[str], points: Sequence[Mapping[str, Any]]
) -> tuple[list[dict], list[str]]:
    """The points of other runs that were tested on the same images.

    Args:
        folders: their work directories.
        points: of this run.

    Returns:
        The points, with ``run``, the name of its work directory; and what a reader must know of
        them.
    """
    found, notes = [], []
    tested = {point['tested_on'] for point in points}
    for folder in folders:
        path = Path(folder, FILE)
        if not path.is_file():
            notes.append(
                f'{folder} has no {FILE}: run its pipeline to the end, or mmcast train again if it '
                'has ended'
            )
            continue
        try:
            others = _read(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            notes.append(f'{path} is damaged ({error!r}): mmcast train on its pipeline mends it')
            continue
        name = Path(folder).resolve().name
        if not others:
            notes.append(f'{name} has no point: none of its networks has labels and an AP')
        same = [point for point in others if point['tested_on'] in tested]
        if len(same) < len(others):
            notes.append(f'{name} was tested on other images: {len(others) - len(same)} left out')
        notes += [
            f'{name}: {point["row"]} learned from {point["images"]} other images'
            for point in same
            if point['images'] in {own['images'] for own in points}
            and point['labels'] not in {own['labels'] for own in points}
        ]
        found += [dict(point, run=name) for point in same]
    return found, notes


def _read(path: Path) -> list[dict]:
    """Raises OSError, ValueError, KeyError or TypeError where the file is damaged."""
    points = json.loads(path.read_text(encoding='utf-8'))['points']
    for point in points:
        _ = float(point['mask_ap']), int(point['images']), int(point['objects'])
        _ = point['row'] + point['labels'] + point['tested_on']
    return points


def picture(points: Sequence[Mapping[str, Any]]) -> str:
    """AP over the number of labeled images (data URI).

    Args:
        points: at least one.
    """
    figure = Figure(figsize=(7.5, 3.2), layout='constrained')
    axis = figure.subplots()
    for point, marker in zip(points, itertools.cycle('osD^v<>ph*')):
        run = f' ({point["run"]})' if 'run' in point else ''
        text = plot_text(f'{point["row"]}{run}: {point["mask_ap"]:.1f}')
        axis.plot(point['images'], point['mask_ap'], marker, alpha=0.8, label=text)
    numbers = sorted({point['images'] for point in points})
    axis.set(
        xscale='log',
        xlim=(numbers[0] / 1.5, numbers[-1] * 1.5),
        xlabel='labeled images',
        ylabel='mask AP',
    )
    axis.set_xticks(numbers, [_number(number, points) for number in numbers])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    figure.legend(loc='outside right center', fontsize='small')
    buffer = io.BytesIO()
    figure.savefig(buffer, format='svg')
    return data_uri(buffer.getvalue(), 'svg+xml')


def _number(images: int, points: Iterable[Mapping[str, Any]]) -> str:
    """Of images, and of the objects in them where all points have as many."""
    objects = {point['objects'] for point in points if point['images'] == images}
    return f'{images:,}' + (f'\n({objects.pop():,} objects)' if len(objects) == 1 else '')
