"""The HTML page of ``inspect_pseudo_labels``: tables, diagrams and drawings in one file."""

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmcast.errors import CASTError
from mmcast.files import write_atomically
from mmcast.pseudo_labels.inspection import LoadedStore, describe_stores, load_stores
from mmcast.pseudo_labels.store import SCORES
from mmcast.reports.html import data_uri, percent, plot_text, render
from mmcast.reports.labels_on_images import class_colours, draw_labels


def inspect_pseudo_labels(
    stores: Mapping[str, str | os.PathLike],
    page: str | os.PathLike,
    *,
    json_file: str | os.PathLike | None = None,
    labeled: str | os.PathLike | None = None,
    hidden: str | os.PathLike | None = None,
    img_dir: str | os.PathLike | None = None,
    score_thr: float | Mapping[str, float] = 0.3,
    class_score_thr: float | Mapping[str, float] | None = None,
    mask_quality_thr: float | Mapping[str, float] | None = None,
    agreement_thr: float | Mapping[str, float] | None = None,
    min_area: int = 0,
    min_visible: float = 0,
    top_k: int | None = None,
    images: int = 6,
) -> dict:
    """Describes one pseudo-label file, or several of the same images side by side, on one HTML
    page.

    Args:
        stores: files by the title of their column, such as before and after the teacher's
            adaptation.
        page: the HTML file to write; it refers to no other.
        json_file: file for the same figures, if any.
        labeled: COCO JSON of the labeled images, to compare counts and areas with.
        hidden: COCO JSON with held-out ground truth of the same images, to compare
            with.
        img_dir: folder of the images, for overlays.
        score_thr: labels with a ``score`` above it, one number or one for each class by name, are
            used, as in ``PseudoLabelDataset``; calibration and AP are those of all labels.
        class_score_thr: the same for ``class_score``.
        mask_quality_thr: the same for ``mask_quality``.
        agreement_thr: the same for ``agreement``.
        min_area: smallest number of pixels of a used label.
        min_visible: smallest fraction of its pixels that overlaps leave to a used label.
        top_k: used labels per image, at most.
        images: how many of the worst and of the best images to draw.

    Returns:
        What ``json_file`` gets; docs/pseudo_labels.md describes it.

    Raises:
        CASTError: a file is missing, or they are not of the same images or classes.
    """
    thresholds = dict(
        score=score_thr,
        class_score=class_score_thr,
        mask_quality=mask_quality_thr,
        agreement=agreement_thr,
    )
    thresholds = {name: value for name, value in thresholds.items() if value is not None}
    options = dict(thresholds=thresholds, min_area=min_area, min_visible=min_visible, top_k=top_k)
    loaded = load_stores(stores, options, hidden)
    report, chosen = describe_stores(loaded, options, labeled, images)
    write_page(page, report, loaded, chosen, img_dir)
    if json_file:
        write_atomically(json_file, json.dumps(report, indent=1))
    return report


def write_page(
    path: str | os.PathLike,
    report: dict,
    stores: Sequence[LoadedStore],
    chosen: Mapping[str, Sequence[int]],
    img_dir: str | os.PathLike | None,
) -> None:
    """Writes the page.

    Args:
        path: of the page.
        report: what ``inspect_pseudo_labels`` returns.
        stores: with the labels to draw.
        chosen: ids of the images to draw, by the title of their table.
        img_dir: their folder; without it nothing is drawn.

    Raises:
        CASTError: an image is not in the folder.
    """
    colours = class_colours(list(stores[0].names.values()))
    drawings = {}
    if img_dir is not None:
        drawings = {
            kind: [_draw(stores, image, colours, Path(img_dir)) for image in images]
            for kind, images in chosen.items()
        }
    figures = report['stores']
    calibrations = [one['quality']['calibration'] for one in figures.values() if 'quality' in one]
    page = render(
        Path(__file__).with_name('pseudo_labels.html.j2'),
        title=' / '.join(figures),
        report=report,
        histograms=_plot(
            _names([one['histograms'] for one in figures.values()]), figures, _draw_histogram
        ),
        calibration=_plot(_names(calibrations), figures, _draw_calibration),
        colours=colours,
        drawings=drawings,
        hidden=stores[0].hidden is not None,
        labels=dict(report['images']),
        number=number,
        percent=percent,
    )
    write_atomically(path, page)


def number(value: float | None) -> str:
    return '-' if value is None else f'{value:.2f}'


def _names(figures: Sequence[dict]) -> list[str]:
    """The scores that any of the files has."""
    return [name for name in SCORES if any(name in one for one in figures)]


def _plot(
    names: Sequence[str], figures: Mapping[str, dict], draw: Callable[..., None]
) -> str | None:
    """A diagram for each score, side by side, as data URI; None without any score."""
    if not names:
        return None
    figure = Figure(figsize=(4.2 * len(names), 3.2), layout='constrained')
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        for title, one in figures.items():
            draw(axis, name, title, one)
        axis.set(xlabel=name, xlim=(0, 1))
    axis.legend(fontsize='x-small')
    buffer = io.BytesIO()
    figure.savefig(buffer, format='svg')
    return data_uri(buffer.getvalue(), 'svg+xml')


def _draw_histogram(axis: Axes, name: str, title: str, figures: dict) -> None:
    counts = figures['histograms'].get(name)
    if counts:
        axis.stairs(counts, np.linspace(0, 1, len(counts) + 1), label=plot_text(title))
    axis.set_ylabel('labels')


def _draw_calibration(axis: Axes, name: str, title: str, figures: dict) -> None:
    axis.axline((0, 0), slope=1, color='lightgrey', linewidth=1)
    bins = figures['quality']['calibration'].get(name, {}).get('bins', [])
    scores = [each['score'] for each in bins]
    (line,) = axis.plot(
        scores,
        [each['precision'] for each in bins],
        marker='.',
        label=plot_text(f'{title}: precision'),
    )
    axis.plot(
        scores,
        [each['iou'] for each in bins],
        marker='.',
        linestyle=':',
        color=line.get_color(),
        label=f'{title}: IoU',
    )
    axis.set(ylim=(0, 1), ylabel='of labels with this score')


def _draw(
    stores: Sequence[LoadedStore], image_id: int, colours: dict[str, str], img_dir: Path
) -> dict[str, np.ndarray]:
    """Drawings of one image by the title of their column."""
    name = next(
        image['file_name'] for image in stores[-1].content['images'] if image['id'] == image_id
    )
    if not (img_dir / name).is_file():
        raise CASTError(
            f'image {img_dir / name} not found; give the folder of the images (--img-dir)'
        )
    columns = (
        {}
        if stores[0].hidden is None
        else {'held-out ground truth': stores[0].hidden.get(image_id, [])}
    )
    columns.update({store.title: store.used(image_id) for store in stores})
    categories = stores[0].content['categories']
    return {
        title: draw_labels(
            img_dir / name,
            dict(
                categories=categories,
                annotations=[dict(label, image_id=image_id) for label in labels],
            ),
            image_id,
            colours,
        )
        for title, labels in columns.items()
    }
