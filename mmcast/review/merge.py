"""Merges what people corrected into the labeled set, with a manifest of what became of it."""

import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pycocotools import mask as mask_api

from mmcast.coco.custom import check_sizes
from mmcast.coco.reading import read_image_list, read_labels
from mmcast.coco.splits import manifest_path, read_names
from mmcast.errors import CASTError
from mmcast.files import sha256_of_file, sha256_of_json, write_json_files
from mmcast.memory import no_cycle_search
from mmcast.pseudo_labels.store import check_human
from mmcast.review.comparison import (
    ADDED,
    CHANGED,
    MATCHING_IOU,
    REMOVED,
    UNCHANGED,
    ComparedObject,
    compare_objects,
)
from mmcast.review.returned import Returned, ReturnedObject, read_returned
from mmcast.review.selection import RANDOM
from mmcast.review.task import TASK_FILE, Task, TaskImage, read_task
from mmcast.spelling import nearest
from mmcast.version import __version__

KIND = 'mmcast review manifest'
FORMAT_VERSION = 1
_SIZES_CHECKED = 5000  # labeled images whose headers are read
# What an image may be called in a manifest.
CORRECTED, EMPTY, NOT_REVIEWED, MISSING, SKIPPED = (
    'corrected',
    'empty',
    'not reviewed',
    'did not come back',
    'labeled already',
)


@dataclass
class Merged:
    """What :func:`merge_review` wrote.

    Args:
        manifest: see docs/review.md.
        files: the labeled set, its manifest and, if asked for, the images that are left, by name.
        img_dir: folder that the labeled set's file names are relative to.
        unlabeled_folder: the same of the images that are left, if asked for.
        task: what was handed out.
        compared: the objects of each reviewed image, by its name in the task.
        notes: lines to tell the user.
    """

    manifest: dict
    files: dict[str, Path]
    img_dir: Path
    unlabeled_folder: Path | None
    task: Task
    compared: dict[str, list[ComparedObject]]
    notes: list[str]


@dataclass
class _Images:
    """The labeled set before the merge, or the unlabeled images after it.

    Args:
        content: COCO's, empty without a labeled set.
        folder: of its images.
        notes: what was mended, or became of it.
    """

    content: dict
    folder: Path
    notes: list[str]


@no_cycle_search()
def merge_review(
    folder: str | os.PathLike,
    exports: Sequence[str | os.PathLike],
    out_file: str | os.PathLike,
    *,
    labeled: str | os.PathLike | None = None,
    labeled_images: str | os.PathLike | None = None,
    img_dir: str | os.PathLike | None = None,
    reviewed: str | os.PathLike | None = None,
    jobs: str | os.PathLike | None = None,
    already_labeled: str = 'refuse',
    crowds: str | None = None,
    add_classes: bool = False,
    unchanged_iou: float = 0.8,
    reviewer: str | None = None,
    unlabeled: str | os.PathLike | None = None,
    unlabeled_out: str | os.PathLike | None = None,
    page: str | os.PathLike | None = None,
    force: bool = False,
) -> Merged:
    """Writes a new labeled set: the old one and the reviewed images. No input is changed.

    Args:
        folder: of the task.
        exports: what the tool gave back, see :func:`~mmcast.review.returned.read_returned`.
        out_file: COCO JSON to write; its manifest is written next to it, see
            :func:`~mmcast.coco.splits.manifest_path`.
        labeled: COCO JSON of the labeled images so far; None if there are none.
        labeled_images: their folder; default that of the task's images or of the JSON.
        img_dir: folder of the original images; default the one they were exported from.
        reviewed: ``'all'`` images of the exports, or a text file with a name on each line; needed
            where the tool does not say.
        jobs: CVAT's list of jobs; images of completed ones are reviewed.
        already_labeled: of a reviewed image that is in ``labeled``: ``'refuse'`` it, ``'replace'``
            its labels, or ``'skip'`` what came back.
        crowds: whether ``iscrowd`` 1 in an export means single ``'objects'`` or ``'groups'``;
            needed where there are any.
        add_classes: take classes that neither the labeled set nor the task has.
        unchanged_iou: smallest IoU with its proposal of an object that is unchanged.
        reviewer: who reviewed, for the manifest.
        unlabeled: COCO JSON of the unlabeled images; its names are relative to ``img_dir``, the
            folder of the JSON itself, or one above ``img_dir``.
        unlabeled_out: file for those of them that were not merged.
        page: file that the caller is going to write, which must be none of these either.
        force: replace existing files with other content.

    Raises:
        CASTError: something cannot be read or does not fit together, or see the arguments.
    """
    folder, out_file = Path(folder), Path(out_file)
    inputs = [labeled, unlabeled, jobs, reviewed, folder / TASK_FILE, *exports]
    _check_outputs([out_file, manifest_path(out_file), unlabeled_out, page], inputs)
    task = read_task(folder)
    paths = [Path(path) for path in exports]
    returned, formats = read_returned(paths, task, folder, Path(jobs) if jobs else None)
    done = _reviewed_images(task, returned, formats, reviewed)
    _settle_crowds(returned, done, crowds)
    originals = Path(img_dir or task.img_dir)
    _check_originals(task, done, originals)
    old = _read_labeled(labeled, labeled_images, originals)
    known = _already_labeled(task, done, old, originals)
    skipped = _settle_known(known, already_labeled, labeled)
    compared = {
        image.name: compare_objects(returned.objects[image.name], image.proposals, unchanged_iou)
        for image in task.images
        if image.name in done and image.name not in skipped
    }
    classes = _classes(old, task, compared, add_classes)
    base, prefixes = _common_folder(old.folder, originals)
    replaced = {key for name, key in known.items() if name not in skipped}
    content = _merge(old, task, compared, classes, prefixes, replaced)
    manifest = _describe(task, compared, returned, done, skipped, known)
    manifest |= dict(
        settings=dict(
            matching_iou=MATCHING_IOU, unchanged_iou=unchanged_iou, already_labeled=already_labeled,
            crowds=crowds, reviewed=_told_by(reviewed, jobs, formats),
        ),
        reviewer=reviewer,
        **_sources(folder, task, paths, formats, labeled),
        merged=dict(
            file=out_file.name,
            images=len(content['images']),
            annotations=len(content['annotations']),
        ),
    )  # fmt: skip
    content['info'] = _history(old.content.get('info') or {}, manifest, len(compared))
    files: dict[str, Path] = dict(labeled=out_file, manifest=manifest_path(out_file))
    contents: dict[str | os.PathLike, dict] = {out_file: content, files['manifest']: manifest}
    notes = [*old.notes, *returned.notes]
    rest: _Images | None = None
    if unlabeled and unlabeled_out:
        files['unlabeled'] = Path(unlabeled_out)
        merged = [originals / image.file_name for image in task.images if image.name in compared]
        rest = _rest(unlabeled, originals, merged)
        contents[unlabeled_out] = rest.content
        notes += rest.notes
    write_json_files(contents, force)
    folder_of_rest = rest.folder if rest else None
    return Merged(manifest, files, base, folder_of_rest, task, compared, notes)


def _sources(
    folder: Path,
    task: Task,
    exports: Sequence[Path],
    formats: Sequence[str],
    labeled: str | os.PathLike | None,
) -> dict:
    """What was merged, by names and content."""
    return dict(
        task=dict(folder=folder.name, tool=task.tool, sha256=sha256_of_file(folder / TASK_FILE)),
        exports=[
            dict(file=path.name, format=kind, sha256=_hash(path))
            for path, kind in zip(exports, formats)
        ],
        labeled=dict(file=Path(labeled).name, sha256=sha256_of_file(labeled)) if labeled else None,
    )


def _history(info: dict, manifest: dict, images: int) -> dict:
    """COCO's ``info`` of the merged set: that of the labeled one, and this merge."""
    this = dict(task=manifest['task'], exports=manifest['exports'], images=images)
    return dict(info, reviews=[*info.get('reviews', ()), this])


def _check_outputs(
    outputs: Iterable[str | os.PathLike | None], inputs: Iterable[str | os.PathLike | None]
) -> None:
    read = {Path(path).resolve() for path in inputs if path}
    written: set[Path] = set()
    for path in outputs:
        if not path:
            continue
        place = Path(path).resolve()
        if place in read:
            raise CASTError(f'{path} is an input: name another file for the result')
        if place in written:
            raise CASTError(f'{path} is to hold two results: give each a file of its own')
        written.add(place)


def _hash(path: Path) -> str:
    """Of a file, or of the JSON files of a folder by name."""
    if path.is_file():
        return sha256_of_file(path)
    found = sorted(path.rglob('*.json'))
    return sha256_of_json([[str(each.relative_to(path)), sha256_of_file(each)] for each in found])


# ---- which images were reviewed


def _reviewed_images(
    task: Task,
    returned: Returned,
    formats: Sequence[str],
    reviewed: str | os.PathLike | None,
) -> set[str]:
    if reviewed is not None and 'label_studio' in formats:
        raise CASTError(
            "Label Studio's export says which tasks were submitted: leave --reviewed out"
        )
    if reviewed is None:
        if returned.reviewed is None:
            raise CASTError(
                'the export does not say which images were looked at, and an image without changes '
                'may be right or forgotten: give --reviewed all, or --reviewed FILE with a name on '
                "each line, or CVAT's --jobs FILE"
            )
        done = returned.reviewed
    elif str(reviewed) == 'all':
        done = {*returned.objects}
    else:
        done = _listed(task, returned, reviewed)
    if not done:
        raise CASTError(
            'no image was reviewed: submit tasks in Label Studio, complete jobs in CVAT, set the '
            'flag reviewed in Labelme, or say it with --reviewed'
        )
    return done


def _listed(task: Task, returned: Returned, path: str | os.PathLike) -> set[str]:
    """The names in the task of the images that a text file lists."""
    by_name = {image.file_name: image.name for image in task.images}
    by_name |= {image.name: image.name for image in task.images}
    done = set()
    for number, name in read_names(path).items():
        found = by_name.get(name)
        if found is None or found not in returned.objects:
            what = 'was not handed out' if found is None else 'is not in the export'
            raise CASTError(
                f'{path}, line {number}: the image {name} {what}: correct or remove the line'
            )
        done.add(found)
    return done


def _told_by(
    reviewed: str | os.PathLike | None, jobs: str | os.PathLike | None, formats: Sequence[str]
) -> str:
    if reviewed is not None:
        return 'all' if str(reviewed) == 'all' else f'the list {Path(reviewed).name}'
    if jobs:
        return f'completed jobs of {Path(jobs).name}'
    flags = 'label_studio' not in formats
    return 'flag reviewed of Labelme' if flags else 'submitted annotations of Label Studio'


def _settle_crowds(returned: Returned, done: set[str], crowds: str | None) -> None:
    number = sum(each.iscrowd for name in done for each in returned.objects[name])
    if number and crowds is None:
        raise CASTError(
            f'{number} objects of the export have iscrowd 1, as groups have, which are not trained '
            'on; tools that write brush masks so (datumaro, CVAT) mean single objects: give '
            '--crowds objects, or --crowds groups if people meant groups'
        )
    if crowds == 'objects':
        for name in done:
            returned.objects[name] = [
                ReturnedObject(each.label, each.segmentation) for each in returned.objects[name]
            ]


# ---- the labeled set and what is in it already


def _check_originals(task: Task, done: set[str], folder: Path) -> None:
    for image in task.images:
        path = folder / image.file_name
        if image.name not in done:
            continue
        if not path.is_file():
            raise CASTError(
                f'image {path} of the task is missing: name the folder of the images with --img-dir'
            )
        if sha256_of_file(path) != image.sha256:
            raise CASTError(
                f'image {path} has changed since it was handed out: put the old one back, or '
                'export the task again'
            )


def _read_labeled(
    labeled: str | os.PathLike | None, folder: str | os.PathLike | None, originals: Path
) -> _Images:
    if labeled is None:
        return _Images(dict(images=[], annotations=[], categories=[]), originals, [])
    found: list[Path] = []

    def find(images: list[dict]) -> Path:
        if not found:
            places = [Path(folder)] if folder else [originals, Path(labeled).parent]
            found.append(_only_folder(images, places, labeled))
        return found[0]

    labels = read_labels(labeled, find)
    check_human(labels.content, labeled)
    place = find(labels.content['images'])
    check_sizes(labels.content['images'][:_SIZES_CHECKED], place, Path(labeled), deep_is_fine=True)
    return _Images(labels.content, place, labels.mended)


def _only_folder(images: list[dict], places: Sequence[Path], labeled: str | os.PathLike) -> Path:
    """The one of some folders that has all images of a label file."""
    complete = {
        place.resolve(): place
        for place in reversed(places)
        if all((place / image['file_name']).is_file() for image in images)
    }
    fix = 'name their folder with --labeled-images'
    if len(complete) > 1:
        raise CASTError(
            f'{labeled}: images of these names are in {" and ".join(map(str, places))}: {fix}'
        )
    if not complete:
        first = f', such as {images[0]["file_name"]}' if images else ''
        raise CASTError(
            f'{labeled}: not all of its images are in {" or ".join(map(str, places))}{first}: {fix}'
        )
    return next(iter(complete.values()))


def _already_labeled(task: Task, done: set[str], old: _Images, originals: Path) -> dict[str, int]:
    """The ids of images in the labeled set that were reviewed too, by name in the task: the same
    file, or a copy.
    """
    by_path: dict[Path, int] = {}
    by_size: dict[int, list[tuple[Path, int]]] = {}
    for entry in old.content['images']:
        path = old.folder / entry['file_name']
        by_path[path.resolve()] = entry['id']
        by_size.setdefault(path.stat().st_size, []).append((path, entry['id']))
    known = {}
    for image in task.images:
        if image.name not in done:
            continue
        path = originals / image.file_name
        copies = (
            key
            for other, key in by_size.get(path.stat().st_size, ())
            if sha256_of_file(other) == image.sha256
        )
        key = by_path.get(path.resolve(), next(copies, None))
        if key is not None:
            known[image.name] = key
    return known


def _settle_known(
    known: Mapping[str, int], already_labeled: str, labeled: str | os.PathLike | None
) -> set[str]:
    """The reviewed images that are not merged."""
    if known and already_labeled == 'refuse':
        raise CASTError(
            f'{len(known)} reviewed images, such as {min(known)}, or copies of them, are in '
            f'{labeled} already: give --already-labeled replace to take the new labels in place of '
            'the old ones, or --already-labeled skip'
        )
    return {*known} if already_labeled == 'skip' else set()


def _classes(
    old: _Images,
    task: Task,
    compared: Mapping[str, list[ComparedObject]],
    add_classes: bool,
) -> list[dict]:
    """The categories of the merged set: those of the labeled one with their ids, then new ones."""
    categories = [*old.content['categories']]
    names = {category['name'] for category in categories}
    used = {
        each.returned.label for objects in compared.values() for each in objects if each.returned
    }
    new = [name for name in task.classes if name not in names and (name in used or not names)]
    foreign = sorted(used - names - {*task.classes})
    if foreign and not add_classes:
        similar = nearest(foreign[0], [*names, *task.classes])
        hint = f' (is it {similar}?)' if similar else ''
        raise CASTError(
            f'the export has the class {foreign[0]}{hint}, which neither the labeled set nor the '
            'task has: correct it in the tool, or give --add-classes'
        )
    first = 1 + max([0, *(category['id'] for category in categories)])
    added = [
        dict(id=number, name=name, supercategory='none')
        for number, name in enumerate([*new, *foreign], start=first)
    ]
    return [*categories, *added]


def _common_folder(labeled: Path, originals: Path) -> tuple[Path, tuple[str, str]]:
    """The folder of all images, and what to put in front of the names of both sets."""
    if labeled.resolve() == originals.resolve():
        return originals, ('', '')
    places = [labeled.resolve(), originals.resolve()]
    try:
        common = Path(os.path.commonpath(places))
    except ValueError as error:  # other drives of Windows
        raise CASTError(
            f'{labeled} and {originals} have no folder in common: put the images on one drive'
        ) from error
    first, second = (place.relative_to(common).as_posix() for place in places)
    return common, (first if first != '.' else '', second if second != '.' else '')


def _merge(
    old: _Images,
    task: Task,
    compared: Mapping[str, list[ComparedObject]],
    categories: list[dict],
    prefixes: tuple[str, str],
    replaced: set[int],
) -> dict:
    """The content of the merged set, without ``info``."""
    ids = {category['name']: category['id'] for category in categories}
    images = [
        dict(image, file_name=posixpath.join(prefixes[0], image['file_name']))
        for image in old.content['images']
        if image['id'] not in replaced
    ]
    annotations = [ann for ann in old.content['annotations'] if ann['image_id'] not in replaced]
    image_id = max([0, *(image['id'] for image in old.content['images'])])
    number = max([0, *(ann['id'] for ann in old.content['annotations'])])
    for image in task.images:
        if image.name not in compared:
            continue
        image_id += 1
        name = posixpath.join(prefixes[1], image.file_name)
        images.append(dict(id=image_id, file_name=name, height=image.height, width=image.width))
        for each in compared[image.name]:
            if each.returned is None:
                continue
            number += 1
            annotations.append(
                dict(
                    id=number,
                    image_id=image_id,
                    category_id=ids[each.returned.label],
                    segmentation=each.segmentation,
                    bbox=mask_api.toBbox(each.segmentation).tolist(),
                    area=int(mask_api.area(each.segmentation)),
                    iscrowd=int(each.returned.iscrowd),
                )
            )
    return dict(old.content, categories=categories, images=images, annotations=annotations)


def _rest(unlabeled: str | os.PathLike, originals: Path, merged: Iterable[Path]) -> _Images:
    """The unlabeled images that were not merged. The same names may be others in another folder, so
    files are compared.
    """

    def find(images: list[dict]) -> Path:
        return _folder_of_list(images, originals, unlabeled)

    content = read_image_list(unlabeled, find)
    folder = find(content['images'])
    gone = {path.resolve() for path in merged}
    left = [
        image for image in content['images'] if (folder / image['file_name']).resolve() not in gone
    ]
    number = len(content['images'])
    note = f'{number - len(left)} of {number} unlabeled images merged, {len(left)} left'
    return _Images(dict(content, images=left, annotations=[]), folder, [note])


def _folder_of_list(images: list[dict], originals: Path, unlabeled: str | os.PathLike) -> Path:
    """The folder that a list's names are relative to: the first one that has all of them."""
    for place in (originals, Path(unlabeled).parent, *originals.resolve().parents):
        if all((place / image['file_name']).is_file() for image in images):
            return place
    names = (image['file_name'] for image in images)
    missing = next(name for name in names if not (originals / name).is_file())
    raise CASTError(
        f'{unlabeled}: not all of its images are in {originals}, such as {missing}, nor beside the '
        'file: put it into the folder that its file names are relative to, or take those images out'
    )


# ---- the manifest


def _describe(
    task: Task,
    compared: Mapping[str, list[ComparedObject]],
    returned: Returned,
    done: set[str],
    skipped: set[str],
    known: Mapping[str, int],
) -> dict:
    entries = []
    for image in task.images:
        state = _state(image, compared, returned, done, skipped)
        entry = dict(
            file_name=image.file_name, name=image.name, sha256=image.sha256, reason=image.reason,
            state=state, proposals=len(image.proposals),
        )  # fmt: skip
        if image.name in known and image.name not in skipped:
            entry['replaced'] = True
        if image.name in returned.by:
            entry['by'] = returned.by[image.name]
        if image.name in compared:
            entry['objects'] = [_entry(each) for each in compared[image.name]]
        entries.append(entry)
    random = [image.name for image in task.images if image.reason == RANDOM]
    return dict(
        kind=KIND,
        format_version=FORMAT_VERSION,
        mmcast=__version__,
        images=dict(
            handed_out=len(task.images),
            merged=len(compared),
            **{
                state.replace(' ', '_'): sum(entry['state'] == state for entry in entries)
                for state in (UNCHANGED, CORRECTED, EMPTY, NOT_REVIEWED, MISSING, SKIPPED)
            },
            replaced=sum('replaced' in entry for entry in entries),
        ),
        objects=count_outcomes(compared.values()),
        objects_of_random_images=count_outcomes(
            compared[name] for name in random if name in compared
        ),
        class_changes=_class_changes(compared),
        image_list=entries,
    )


def _state(
    image: TaskImage,
    compared: Mapping[str, list[ComparedObject]],
    returned: Returned,
    done: set[str],
    skipped: set[str],
) -> str:
    if image.name not in returned.objects:
        return MISSING
    if image.name not in done:
        return NOT_REVIEWED
    if image.name in skipped:
        return SKIPPED
    objects = compared[image.name]
    if not any(each.returned for each in objects):
        return EMPTY
    return UNCHANGED if all(each.outcome == UNCHANGED for each in objects) else CORRECTED


def _entry(each: ComparedObject) -> dict:
    entry: dict = dict(outcome=each.outcome)
    if each.returned:
        entry['label'] = each.returned.label
        if each.returned.iscrowd:
            entry['iscrowd'] = 1
    if each.proposal:
        entry |= dict(proposal=each.proposal.id, proposed=each.proposal.label)
        entry['score'] = each.proposal.score
    if each.returned and each.proposal:
        entry['iou'] = round(each.iou, 4)
    return entry


def count_outcomes(images: Iterable[Sequence[ComparedObject]]) -> dict:
    """How many objects are what, and the lowest IoU of an unchanged one; None without such."""
    objects = [each for image in images for each in image]
    number = Counter(each.outcome for each in objects)
    same = [each.iou for each in objects if each.outcome == UNCHANGED]
    changed = [each for each in objects if each.outcome == CHANGED]
    return dict(
        proposals=sum(each.proposal is not None for each in objects),
        merged=sum(each.returned is not None for each in objects),
        **{outcome: number[outcome] for outcome in (UNCHANGED, CHANGED, ADDED, REMOVED)},
        identical=sum(iou == 1 for iou in same),
        lowest_unchanged_iou=round(min(same), 4) if same else None,
        class_changed=sum(each.relabeled for each in changed),
        groups=sum(bool(each.returned and each.returned.iscrowd) for each in objects),
    )


def _class_changes(compared: Mapping[str, list[ComparedObject]]) -> list[dict]:
    changes = Counter(
        (each.proposal.label, each.returned.label)
        for objects in compared.values()
        for each in objects
        if each.relabeled and each.proposal and each.returned
    )
    return [dict(proposed=a, label=b, number=number) for (a, b), number in changes.most_common()]
