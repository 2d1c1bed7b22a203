"""Ground truth and predictions drawn over some validation images, one column per model."""

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmcast.coco.consistency import check_labels
from mmcast.files import write_atomically
from mmcast.pipeline.pipeline import PipelineRun
from mmcast.pseudo_labels.generate import generate_pseudo_labels
from mmcast.reports.html import plot_text
from mmcast.reports.labels_on_images import class_colours, draw_labels
from mmcast.training.distributed import say


@dataclass
class Line:
    """One image: its file name and the drawings, (H, W, 3) uint8 RGB each, one per column."""

    name: str
    images: list[np.ndarray]


@dataclass
class Overlays:
    """All drawings, the titles of their columns, and class name -> colour (#rrggbb)."""

    titles: list[str]
    lines: list[Line]
    legend: dict[str, str]
    score_thr: float


def make_overlays(run: PipelineRun) -> Overlays | None:
    """Draws what the pipeline's ``report`` asks for; None if it asks for no images.

    ``report`` has ``ann_file``, ``img_dir``, ``columns`` (dicts with ``title`` and a ``step``, or
    ``config`` and ``checkpoint``) and may have ``images`` (how many, default 12) and ``score_thr``
    (default 0.3). Predictions are kept in ``<work_dir>/report``.

    Raises:
        CASTError: a path is wrong or a checkpoint does not fit its config.
    """
    columns = run.plan.report_columns()
    if not columns:
        return None
    wanted = run.plan.config.report
    ann_file, img_dir = (run.resolve(wanted[key], 'report') for key in ('ann_file', 'img_dir'))
    score_thr = wanted.get('score_thr', 0.3)
    truth = check_labels(ann_file, img_dir).content
    images = choose_report_images(truth, wanted.get('images', 12))
    folder = run.plan.work_dir / 'report'
    folder.mkdir(exist_ok=True)
    image_list = folder / 'images.json'
    write_atomically(
        image_list, json.dumps(dict(images=images, annotations=[], categories=truth['categories']))
    )

    predictions = [
        _predict(run, run.resolve(column, 'report'), image_list, img_dir, score_thr)
        for column in columns
    ]
    labels_of = [truth] + [json.loads(path.read_text(encoding='utf-8')) for path in predictions]
    colours = class_colours([category['name'] for category in truth['categories']])
    lines = []
    for image in images:
        path = Path(img_dir, image['file_name'])
        drawings = [draw_labels(path, labels, image['id'], colours) for labels in labels_of]
        lines.append(Line(image['file_name'], drawings))
    titles = ['ground truth'] + [column['title'] for column in columns]
    return Overlays(titles, lines, colours, score_thr)


def choose_report_images(labels: dict, count: int) -> list[dict]:
    """``count`` images of a COCO label file, evenly spread by id over those that have an
    annotation.
    """
    annotated = {item['image_id'] for item in labels['annotations']}
    images = [image for image in labels['images'] if image['id'] in annotated]
    images.sort(key=lambda image: image['id'])
    places = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    return [images[place] for place in places]


def _predict(
    run: PipelineRun, column: dict, image_list: Path, img_dir: str, score_thr: float
) -> Path:
    """The label file with a model's predictions; made anew only if what it depends on changed."""
    config = run.column_config(column)
    inputs = dict(column, kind='test', images=str(image_list), score_thr=score_thr)
    fingerprint = run.state.fingerprint(column['title'], inputs, config.to_dict())
    path = image_list.with_name(f'predictions_{fingerprint.digest[:16]}.json')
    if not path.exists():
        say(f'report: predictions of {column["title"]}')
        generate_pseudo_labels(
            config,
            column['checkpoint'],
            str(path),
            ann_file=str(image_list),
            img_dir=img_dir,
            score_floor=score_thr,
            progress=False,
        )
    return path


def write_contact_sheet(overlays: Overlays, path: Path, count: int = 4) -> None:
    """A PNG with ``count`` of the images, for a README."""
    places = (
        np.linspace(0, len(overlays.lines) - 1, min(count, len(overlays.lines))).round().astype(int)
    )
    lines = [overlays.lines[place] for place in places]
    ratio = max(line.images[0].shape[0] / line.images[0].shape[1] for line in lines)
    columns = len(overlays.titles)
    figure = Figure(
        figsize=(3.2 * columns, 3.2 * ratio * len(lines) + 0.7), layout='constrained', dpi=100
    )
    axes = figure.subplots(len(lines), columns, squeeze=False)
    for row, line in zip(axes, lines):
        for axis, image in zip(row, line.images):
            axis.imshow(image)
            axis.axis('off')
    for axis, title in zip(axes[0], overlays.titles):
        axis.set_title(plot_text(title))
    handles = [
        matplotlib.patches.Patch(color=colour, label=plot_text(name))
        for name, colour in overlays.legend.items()
    ]
    figure.legend(
        handles=handles, loc='outside lower center', ncols=min(len(handles), 8), frameon=False
    )
    figure.savefig(path)
