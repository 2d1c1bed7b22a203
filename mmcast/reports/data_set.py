"""A page of overlays and findings, in one HTML file that can be passed on."""

import os
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mmcast.coco.annotations import examine
from mmcast.coco.checks.check_report import CheckReport
from mmcast.coco.findings import FIXES, NOTES, printable
from mmcast.coco.lists import ImageEntry, id_key
from mmcast.errors import CASTError
from mmcast.files import write_atomically
from mmcast.reports.html import photo, render
from mmcast.reports.labels_on_images import class_colours, draw_labels

_DRAWN = 'image_id', 'category_id', 'segmentation', 'iscrowd'
_SHOWN = 100  # findings of a kind on the page
_SLIMMEST = (
    20  # times as long as wide: drawn at one width, others would get no height, or far too much
)


def write_sheet(
    report: CheckReport, path: str | os.PathLike, count: int = 40, progress: bool = True
) -> None:
    """Writes statistics, findings and ``count`` images with their valid annotations.

    Up to half of the images have findings, the rest is evenly spread over the data set. Broken
    images and annotations with findings are not drawn.
    """
    images = _choose_images(report, count)
    labels = _valid_labels(report, images)
    colours = class_colours(list(report.categories.values()))
    remarks = _remarks(report)
    figures = []
    for image in track(images, 'Drawing', console=Console(stderr=True), disable=not progress):
        own = dict(labels, annotations=labels['annotations'][image.new_id])
        try:
            drawing = draw_labels(Path(image.path), own, image.new_id, colours)
        except CASTError:  # a rare sort of a known format, which Pillow reads and OpenCV does not
            continue
        figures.append(
            dict(
                name=printable(image.name),
                id=printable(str(image.id)),
                photo=photo(drawing),
                instances=len(own['annotations']),
                remarks=remarks.get(image.id, []),
            )
        )
    page = render(
        Path(__file__).with_name('data_set.html.j2'),
        title=printable(report.ann_file),
        report=report,
        statistics=report.statistics,
        kinds=report.by_kind(),
        notes=NOTES,
        cures=FIXES,
        shown=_SHOWN,
        figures=figures,
        colours=colours,
    )
    write_atomically(path, page)


def _choose_images(report: CheckReport, count: int) -> list[ImageEntry]:
    """Readable images: some with problems, then some of the others."""
    readable = [image for image in report.images if _drawable(report, image)]
    damaged = {
        finding.image_id
        for finding in report.findings
        if finding.source == report.ann_file and finding.kind not in NOTES
    }
    first = _spread([image for image in readable if image.id in damaged], count // 2)
    return first + _spread(
        [image for image in readable if image.id not in damaged], count - len(first)
    )


def _drawable(report: CheckReport, image: ImageEntry) -> bool:
    size = report.pixels[image.path].size if image.path in report.pixels else None
    return size is not None and image.size in (None, size) and max(size) <= _SLIMMEST * min(size)


def _spread(images: list[ImageEntry], count: int) -> list[ImageEntry]:
    places = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    return [images[place] for place in places]


def _valid_labels(report: CheckReport, images: list[ImageEntry]) -> dict:
    """Categories as in COCO, and by image id the annotations as training reads them."""
    drawn = {id_key(image.id) for image in images}
    own = [
        annotation
        for annotation in (report.labels.each_annotation() if report.labels and images else ())
        if isinstance(annotation, dict) and id_key(annotation.get('image_id')) in drawn
    ]
    annotations: dict[int, list[dict]] = {image.new_id: [] for image in images}
    for annotation in examine(own, report.lists, report.crowd_as_instances).annotations:
        annotations[annotation['image_id']].append({key: annotation.get(key) for key in _DRAWN})
    return dict(
        categories=[
            dict(id=category.new_id, name=category.name)
            for category in report.lists.categories.values()
        ],
        annotations=annotations,
    )


def _remarks(report: CheckReport) -> dict:
    """Findings by image id, as text."""
    remarks: dict = {}
    for finding in report.findings:
        if finding.source == report.ann_file and finding.image_id is not None:
            which = '' if finding.annotation_id is None else f', annotation {finding.annotation_id}'
            text = printable(f'{finding.kind}{which}: {finding.detail}')
            remarks.setdefault(finding.image_id, []).append(text)
    return remarks
