"""Pages of ``mmcast review``: the images that are handed out, and what people made of them."""

import html
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmcast.coco.findings import printable
from mmcast.files import write_atomically
from mmcast.reports.html import render
from mmcast.reports.labels_on_images import class_colours, draw_labels
from mmcast.review.comparison import ComparedObject
from mmcast.review.export import Exported
from mmcast.review.merge import Merged
from mmcast.review.task import Proposal, TaskImage

_TEMPLATE = Path(__file__).with_name('review.html.j2')
_HEAD = 5000  # characters of a page that has its title, the escaped name of a file


def write_task_page(done: Exported, page: str | os.PathLike) -> None:
    """Writes the contact sheet of a task: every image with its proposals.

    Args:
        done: the task.
        page: HTML file to write.
    """
    task = done.task
    colours = class_colours(task.classes)
    figures = [
        dict(
            name=printable(image.file_name),
            drawings={
                'proposals': _draw(
                    done.folder / task.image_folder, image, _pairs(image.proposals), colours
                )
            },
            remarks=[
                f'{image.reason}, {task.settings["criterion"]} {image.value:.2f}',
                f'{len(image.proposals)} proposals',
            ],
        )
        for image in sorted(task.images, key=lambda each: (each.reason, -each.value))
    ]
    counts = dict(
        tool=task.tool, images=len(task.images), proposals=task.number_of_proposals,
        **{'left out': len(done.left_out)},
    )  # fmt: skip
    settings = _readable_settings(task.settings)
    _write(page, _task_title(done.folder), {'task': counts, 'settings': settings}, figures, colours)


def is_task_page(page: Path, folder: Path) -> bool:
    """Whether a file is what :func:`write_task_page` writes of the task in a folder."""
    return _title_of(page) == _task_title(folder)


def is_merge_page(page: Path, labeled: Path) -> bool:
    """Whether a file is what :func:`write_merge_page` writes of a merged set."""
    return _title_of(page) == _merge_title(labeled)


def _readable_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are set, without hashes and addresses."""
    chosen = {key: value for key, value in settings.items() if value and key != 'image_url'}
    thresholds = settings['thresholds'].items()
    chosen['thresholds'] = ', '.join(f'{name} above {value}' for name, value in thresholds)
    if settings['labeled']:
        chosen['labeled'] = printable(settings['labeled']['file'])
    return chosen


def write_merge_page(done: Merged, folder: Path, page: str | os.PathLike) -> None:
    """Writes the images that were corrected, with their proposals beside.

    Args:
        done: what was merged.
        folder: of the task.
        page: HTML file to write.
    """
    task = done.task
    names = [*task.classes, *_new_classes(done)]
    colours = class_colours(names)
    images = {image.name: image for image in task.images}
    figures = []
    for entry in done.manifest['image_list']:
        if entry['state'] not in ('corrected', 'empty'):
            continue
        image, objects = images[entry['name']], done.compared[entry['name']]
        kept = [
            (each.returned.label, each.segmentation, int(each.returned.iscrowd))
            for each in objects
            if each.returned
        ]
        drawn = {'proposals': _pairs(image.proposals), 'reviewed': kept}
        figures.append(
            dict(
                name=printable(image.file_name),
                drawings={
                    title: _draw(folder / task.image_folder, image, labels, colours)
                    for title, labels in drawn.items()
                },
                remarks=[entry['state'], *_remarks(objects)],
            )
        )
    tables = {key: done.manifest[key] for key in ('images', 'objects', 'objects_of_random_images')}
    _write(page, _merge_title(done.files['labeled']), tables, figures, colours)


def _task_title(folder: Path) -> str:
    return printable(f'to be reviewed: {folder.name}')


def _merge_title(labeled: Path) -> str:
    return printable(f'reviewed: {labeled.name}')


def _title_of(page: Path) -> str | None:
    """The title of an HTML file, if it has one."""
    if not page.is_file():
        return None
    with page.open(encoding='utf-8', errors='replace') as file:
        found = re.search('<title>(.*?)</title>', file.read(_HEAD))
    return html.unescape(found[1]) if found else None


def _new_classes(done: Merged) -> list[str]:
    used = {
        each.returned.label
        for objects in done.compared.values()
        for each in objects
        if each.returned
    }
    return sorted(used - {*done.task.classes})


def _remarks(objects: Sequence[ComparedObject]) -> list[str]:
    lines = []
    for each in objects:
        if each.returned and each.relabeled and each.proposal:
            lines.append(f'{each.proposal.label} became {each.returned.label}, IoU {each.iou:.2f}')
        elif each.returned and each.outcome == 'changed':
            lines.append(f'{each.returned.label} changed, IoU {each.iou:.2f}')
        elif each.returned and each.outcome == 'added':
            lines.append(f'{each.returned.label} added')
        elif each.proposal and each.outcome == 'removed':
            lines.append(f'{each.proposal.label} removed, score {each.proposal.score:.2f}')
    return [printable(line) for line in lines]


def _pairs(proposals: Sequence[Proposal]) -> list[tuple[str, dict, int]]:
    return [(each.label, each.segmentation, 0) for each in proposals]


def _draw(
    folder: Path,
    image: TaskImage,
    labels: Sequence[tuple[str, dict, int]],
    colours: Mapping[str, str],
) -> np.ndarray:
    """An image of the task with labels: name, mask and whether it is a group."""
    ids = {name: number for number, name in enumerate(colours, start=1)}
    annotations = [
        dict(image_id=1, category_id=ids[name], segmentation=mask, iscrowd=crowd)
        for name, mask, crowd in labels
    ]
    categories = [dict(id=number, name=name) for name, number in ids.items()]
    labels_ = dict(categories=categories, annotations=annotations)
    return draw_labels(folder / image.name, labels_, 1, dict(colours))


def _write(
    page: str | os.PathLike,
    title: str,
    tables: Mapping[str, Mapping],
    figures: list[dict],
    colours: Mapping[str, str],
) -> None:
    text = render(
        _TEMPLATE, title=title, tables=tables, figures=figures,
        colours={printable(name): colour for name, colour in colours.items()},
    )  # fmt: skip
    write_atomically(page, text)
