"""All checks of a data set, one after the other."""

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mmcast.coco.annotations import Rows
from mmcast.coco.checks.check_report import CheckReport
from mmcast.coco.checks.duplicates import find_copies, find_shared
from mmcast.coco.checks.labels import Checked, check_annotations, instances_of
from mmcast.coco.checks.pixels import read_many
from mmcast.coco.checks.statistics import count_instances
from mmcast.coco.findings import Finding, printable
from mmcast.coco.instances import MANY_GROUPS
from mmcast.coco.lists import (
    ImageEntry,
    Lists,
    fill_sizes,
    read_categories,
    read_images,
    twins,
)
from mmcast.coco.parallel import available_processors, map_in_processes
from mmcast.coco.reading import odd_ids
from mmcast.coco.scanner import AnnotationFile, read_annotation_file
from mmcast.errors import CASTError
from mmcast.images import (
    IMAGE_SUFFIXES,
    ImageFolder,
    ValueRange,
    explain_sizes,
    list_folder,
    parse_value_range,
)

_FILES_AT_ONCE = 16
_MANY_INSTANCES = 300  # of an image; variables.max_queries of cast_custom.py


def check_dataset(
    ann_file: str | os.PathLike,
    img_dir: str | os.PathLike | None,
    *,
    unlabeled: str | os.PathLike | None = None,
    unlabeled_img_dir: str | os.PathLike | None = None,
    val: str | os.PathLike | None = None,
    val_img_dir: str | os.PathLike | None = None,
    value_range: ValueRange = None,
    crowd_as_instances: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> CheckReport:
    """Reads every annotation and image of a labeled set, and the images of two more sets; changes
    nothing.

    Args:
        ann_file: COCO JSON of the labeled images.
        img_dir: folder that its file names are relative to; None reads no images, of no set.
        unlabeled: COCO JSON or folder of unlabeled images, which must not be among the labeled
            ones.
        unlabeled_img_dir: folder of an ``unlabeled`` JSON; by default its own if all its images are
            there, else ``img_dir``.
        val: COCO JSON or folder of validation images, likewise. Its labels are not checked.
        val_img_dir: folder of a ``val`` JSON, likewise.
        value_range: what is black and white in images of more than 8 bits, see
            :func:`~mmcast.images.parse_value_range`; without one such images are findings.
        crowd_as_instances: take groups (``iscrowd`` 1) for single objects.
        workers: number of processes, by default as many as there are processors.
        progress: show progress bars on stderr.

    Raises:
        CASTError: a path is wrong, or a process was killed.
    """
    workers = available_processors() if workers is None else workers
    if workers < 1:
        raise CASTError(f'cannot check with {workers} processes: give --workers 1 or more')
    workers = workers if workers > 1 else 0  # this process alone
    if img_dir is not None and not os.path.isdir(img_dir):
        raise CASTError(
            f'{img_dir} is not a folder: give the one that file names in {ann_file} are relative to'
        )
    deep_is_fine = parse_value_range(value_range) is not None
    report = CheckReport(os.fspath(ann_file), Lists(os.fspath(ann_file)), crowd_as_instances)
    others = {}
    for name, source, folder in (
        ('unlabeled', unlabeled, unlabeled_img_dir),
        ('val', val, val_img_dir),
    ):
        if source is not None:
            others[name], found = _list_images(source, folder, img_dir)
            report.findings += found
    if _check_labels(report, img_dir, workers, progress):
        everything = report.images + [image for images in others.values() for image in images]
        if img_dir is not None:
            report.findings += _check_files(report, everything, workers, progress)
            report.findings += [] if deep_is_fine else _find_deep(report, everything)
            report.findings += _find_turned(report)
        for name, images in others.items():
            report.findings += find_shared(report.images, images, name, report.pixels)
    return report


def _check_labels(
    report: CheckReport,
    img_dir: str | os.PathLike | None,
    workers: int,
    progress: bool,
) -> bool:
    """Fills in all that the annotation file tells; False if it cannot be read."""
    labels = _read(report.ann_file, ('images', 'annotations', 'categories'))
    if isinstance(labels, Finding):
        report.findings.append(labels)
        return False
    report.labels, lists = labels, report.lists
    report.findings += labels.findings
    report.findings += read_images(lists, labels.images, img_dir)
    report.findings += read_categories(lists, labels.categories)
    labels.images, labels.categories = [], []  # large, and not needed any more
    report.findings += fill_sizes(lists, img_dir, labels.each_annotation())
    lists.entries = []
    _check_annotations(report, labels, workers, progress)
    return True


def _check_annotations(
    report: CheckReport,
    labels: AnnotationFile,
    workers: int,
    progress: bool,
) -> None:
    check = partial(check_annotations, crowd_as_instances=report.crowd_as_instances)
    parts = map_in_processes(check, map(labels.annotations, labels.chunks), report.lists, workers)
    ids: list[int | str] = []
    seen: set[int] = set()
    rows = []
    part: Checked
    for part in _track(parts, 'annotations', len(labels.chunks), progress):
        ids += part.ids
        report.findings += part.findings
        seen |= part.seen
        rows.append(part.rows)
    images = report.images
    known = Rows.join(rows)
    for finding, place in odd_ids(ids, report.ann_file):
        if place is not None:
            image = images[known.images[place]]
            finding = replace(finding, file=printable(image.name), image_id=image.id)
        report.findings.append(finding)
    for image in images:
        if image.number not in seen:
            report.findings.append(
                Finding(
                    'image-without-annotations',
                    report.ann_file,
                    printable(image.name),
                    'no annotation',
                    image.id,
                )
            )
    _check_instances(report, known, len(ids))


def _check_instances(report: CheckReport, rows: Rows, listed: int) -> None:
    """Statistics, and findings of what is too few and too many; of ``listed`` annotations some may
    not be usable.
    """
    images, categories = report.images, list(report.lists.categories.values())
    dropped, found = twins(report.lists, np.unique(rows.categories).tolist())
    report.findings += found
    names = list(dict.fromkeys(printable(c.name) for c in categories if c.new_id not in dropped))
    report.categories = {c.new_id: printable(c.name) for c in categories if c.new_id not in dropped}
    places = np.array([names.index(printable(c.name)) for c in categories], int)
    instances = instances_of(rows, places)
    groups = int(rows.crowds.sum())
    report.statistics = count_instances(instances, names, len(images), groups)
    source = report.ann_file
    if not listed:
        report.findings.append(Finding('no-instances', source, source, 'there is no annotation'))
    elif groups and groups >= MANY_GROUPS * len(rows.crowds):
        kind = 'many-crowds' if len(instances) else 'no-instances'
        detail = f'{groups} of {len(rows.crowds)} annotations have iscrowd 1'
        report.findings.append(Finding(kind, source, source, detail))
    per_image = np.bincount(instances[:, 0].astype(int), minlength=len(images))
    for number in np.flatnonzero(per_image > _MANY_INSTANCES).tolist():
        image = images[number]
        detail = f'{per_image[number]} instances'
        report.findings.append(
            Finding('many-instances', source, printable(image.name), detail, image.id)
        )
    for name, count in report.statistics['classes'].items():
        if not count['instances']:
            detail = f'{name!r} has no valid instance'
            report.findings.append(Finding('class-without-annotations', source, source, detail))


def _check_files(
    report: CheckReport, images: list[ImageEntry], workers: int, progress: bool
) -> list[Finding]:
    """Reads every file once, however many sets list it; findings of missing, broken, odd and
    duplicate ones.
    """
    paths = list(dict.fromkeys(image.path for image in images if image.path))
    batches = [
        paths[start : start + _FILES_AT_ONCE] for start in range(0, len(paths), _FILES_AT_ONCE)
    ]
    for part in _track(
        map_in_processes(read_many, batches, None, workers), 'images', len(batches), progress
    ):
        report.pixels.update(part)
    findings = []
    for image in images:
        if image.path is None:
            continue
        found = report.pixels[image.path]
        problem = found.problem
        if image.size and found.size and found.size != image.size:
            problem = (
                'image-size-mismatch',
                (
                    f'listed as {image.size[1]}x{image.size[0]}, the file has '
                    f'{found.size[1]}x{found.size[0]}: '
                    f'{explain_sizes(image.path, found.size, image.size)}'
                ),
            )
        if problem:
            findings.append(
                Finding(
                    problem[0], image.source, printable(image.name), printable(problem[1]), image.id
                )
            )
    return findings + find_copies(report.images, report.pixels)


def _find_deep(report: CheckReport, images: list[ImageEntry]) -> list[Finding]:
    """Images that a value range has to be given for."""
    return [
        Finding('more-than-8-bits', image.source, printable(image.name), pixels.deep, image.id)
        for image in images
        if image.path and (pixels := report.pixels[image.path]).deep
    ]


def _find_turned(report: CheckReport) -> list[Finding]:
    """Labeled images of whose labels the size does not tell whether they are upright."""
    return [
        Finding(
            'turned-image',
            image.source,
            printable(image.name),
            f'orientation {turned} turns or mirrors it',
            image.id,
        )
        for image in report.images
        if image.path and (turned := report.pixels[image.path].turned) != 1
    ]


def _list_images(
    source: str | os.PathLike,
    img_dir: str | os.PathLike | None,
    labeled_images: str | os.PathLike | None,
) -> tuple[list[ImageEntry], list[Finding]]:
    """The images of a COCO JSON in ``img_dir``, by default beside it or in the folder of the
    labeled images, or of a folder at any depth. Without a folder of labeled images none is read.
    """
    folder = Path(source)
    if not folder.is_dir():
        labels = _read(source, ('images',))
        if isinstance(labels, Finding):
            return [], [labels]
        lists = Lists(os.fspath(source))
        if labeled_images is None:
            img_dir = None
        elif img_dir is None:
            img_dir = folder.parent if _all_in(folder.parent, labels.images) else labeled_images
        found = labels.findings + read_images(lists, labels.images, img_dir)
        found += fill_sizes(lists, img_dir)
        return list(lists.images.values()), found
    files = list_folder(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in files.images)
    if not names:
        raise CASTError(
            f'{source} holds no image ({" ".join(IMAGE_SUFFIXES)}): give another folder'
        )
    source = os.fspath(source)
    return [
        ImageEntry(
            number,
            None,
            name,
            None,
            None if labeled_images is None else os.path.abspath(folder / name),
            source,
        )
        for number, name in enumerate(names)
    ], _folder_findings(files, source)


def _folder_findings(files: ImageFolder, source: str) -> list[Finding]:
    """What a folder has besides images that are used."""
    findings = [
        Finding('unusable-name', source, printable(os.fspath(path)), problem)
        for path, problem in files.unusable.items()
    ]
    if files.left_out:
        detail = f'{len(files.left_out)}, such as {files.left_out[0]}'
        findings.append(Finding('files-left-out', source, source, printable(detail)))
    if files.unread:
        findings.append(Finding('unread-format', source, source, printable(files.unread_formats())))
    return findings


def _all_in(folder: Path, entries: list) -> bool:
    """Whether a folder has the files of all entries of a COCO file, which may be damaged."""
    names = [entry.get('file_name') for entry in entries if isinstance(entry, dict)]
    return all(os.path.isfile(folder / name) for name in names if isinstance(name, str))


def _read(path: str | os.PathLike, needed: tuple[str, ...]) -> AnnotationFile | Finding:
    try:
        return read_annotation_file(path, needed)
    except OSError as error:
        raise CASTError(
            f'{path}: cannot read the file ({error.strerror}): check the path'
        ) from error


def _track(parts: Iterable, what: str, total: int, progress: bool) -> Iterable:
    return track(
        parts, f'Checking {what}', total, console=Console(stderr=True), disable=not progress
    )
