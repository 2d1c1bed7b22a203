"""What comes back from an annotation tool: objects by image, and which images were reviewed."""

import posixpath
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcast.coco.converters.cvat import read_cvat, read_cvat_labels
from mmcast.coco.converters.exports import MERGED, ImageLabels, raise_faults, read_json
from mmcast.coco.converters.label_studio import (
    NO_ANNOTATION,
    UPLOAD,
    image_names,
    read_label_studio_labels,
    read_tasks,
)
from mmcast.coco.converters.labelme import REVIEWED, labelme_files, read_labelme
from mmcast.coco.reading import read_labels
from mmcast.errors import CASTError
from mmcast.masks.rle import encode_segmentation, text_rle
from mmcast.review.task import Task

FORMATS = {
    'cvat': 'CVAT for images 1.1',
    'label_studio': 'JSON of Label Studio',
    'labelme': 'JSON files of Labelme',
    'coco': 'COCO JSON',
}

# What the manifest counts better: tasks that nobody submitted, and proposals in several parts.
_EXPECTED = (NO_ANNOTATION, MERGED)


@dataclass(frozen=True)
class ReturnedObject:
    """An object of an export.

    Args:
        label: its class name.
        segmentation: RLE with text counts.
        iscrowd: whether the export says that it is a group.
    """

    label: str
    segmentation: dict
    iscrowd: bool = False


@dataclass
class Returned:
    """What the exports say, by names in the task.

    Args:
        objects: of every image that came back.
        reviewed: images that the tool says are done; None where it does not say.
        by: who reviewed an image, where the tool says so.
        notes: what was left out or mended, in lines.
    """

    objects: dict[str, list[ReturnedObject]] = field(default_factory=dict)
    reviewed: set[str] | None = None
    by: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, other: 'Returned', path: Path) -> None:
        """Appends what another export says; raises CASTError where both have an image."""
        twice = self.objects.keys() & other.objects.keys()
        if twice:
            raise CASTError(
                f'{path}: {len(twice)} images, such as {min(twice)}, are in another export too: '
                'give each image once'
            )
        self.objects |= other.objects
        self.by |= other.by
        self.notes += other.notes
        if other.reviewed is not None:
            self.reviewed = (self.reviewed or set()) | other.reviewed


def read_returned(
    exports: Sequence[Path], task: Task, folder: Path, jobs: Path | None = None
) -> tuple[Returned, list[str]]:
    """Reads exports of a task.

    Args:
        exports: files or folders; what wrote each is told by what it is.
        task: what was handed out.
        folder: of the task.
        jobs: CVAT's list of jobs, as its server gives it.

    Returns:
        What they say, and the format of each, of :data:`FORMATS`.

    Raises:
        CASTError: an export cannot be read, or has an image that was not handed out.
    """
    formats = [format_of(path) for path in exports]
    if 'coco' in formats and task.tool == 'label_studio':
        raise CASTError(
            f"{exports[formats.index('coco')]}: Label Studio's COCO export of brush masks fills "
            'holes and takes objects apart: export as JSON'
        )
    if jobs and set(formats) != {'cvat'}:
        raise CASTError(f'{jobs}: only exports as CVAT for images have jobs: leave --jobs out')
    result = Returned()
    images = folder / task.image_folder
    names = {image.name for image in task.images}
    for path, kind in zip(exports, formats):
        if kind == 'cvat':
            found = _from_cvat(path, images, names, jobs)
        elif kind == 'label_studio':
            found = _from_label_studio(path, images, names)
        elif kind == 'labelme':
            found = _from_labelme(path, names)
        else:
            found = _from_coco(path, images, names)
        _check_masks(found, task, path)
        result.add(found, path)
    return result, formats


def _check_masks(found: Returned, task: Task, path: Path) -> None:
    """Raises CASTError if a mask is not of the size of its image: compiled code compares them."""
    for image in task.images:
        for each in found.objects.get(image.name, ()):
            height, width = each.segmentation['size']
            if (height, width) != (image.height, image.width):
                raise CASTError(
                    f'{path}: {image.name} has masks of {width}x{height} pixels and was handed out '
                    f'as {image.width}x{image.height}: export it at its own size'
                )


def format_of(path: Path) -> str:
    """The format of an export, one of :data:`FORMATS`.

    Raises:
        CASTError: it is none of them.
    """
    if path.is_dir():
        return 'labelme'
    if path.suffix.lower() == '.zip':
        raise CASTError(f'{path} is a zip archive: unpack it and give the file of annotations')
    if path.suffix.lower() == '.xml':
        return 'cvat'
    content = read_json(path, 'the annotation tool')
    if isinstance(content, list):
        return 'label_studio'
    if isinstance(content, dict) and 'images' in content:
        return 'coco'
    raise CASTError(
        f'{path} is none of {", ".join(FORMATS.values())}: export it as one of them; mmcast '
        'convert makes COCO JSON of other formats'
    )


def _task_name(texts: Sequence[str], names: Collection[str], path: Path) -> str:
    """The name in the task of an image that an export calls by one of these."""
    for text in texts:
        name = posixpath.basename(text.replace('\\', '/'))
        for found in (name, UPLOAD.sub('', name, count=1)):
            if found in names:
                return found
    raise CASTError(
        f'{path}: its image {texts[0]} was not handed out in this task: give the export of the task'
    )


def _collect(labels: Sequence[ImageLabels], path: Path) -> Returned:
    result, notes = Returned(), Counter[str]()
    for image in labels:
        name = posixpath.basename(image.file_name)
        if name in result.objects:
            raise CASTError(f'{path}: the image {name} has labels twice: keep one of them')
        result.objects[name] = [ReturnedObject(label, rle) for label, rle in image.objects]
        notes += image.notes
    result.notes = [f'{number} {what}' for what, number in notes.items() if what not in _EXPECTED]
    return result


# ---- CVAT


def _from_cvat(path: Path, images: Path, names: set[str], jobs: Path | None) -> Returned:
    content = read_cvat(path)
    frames = {}
    for attributes, _ in content.images:
        frames[_task_name([attributes.get('name', '')], names, path)] = attributes.get('id', '')
    result = _collect(read_cvat_labels(content, path, images, progress=False), path)
    if jobs:
        ranges = _completed(jobs)
        faults = [name for name, number in frames.items() if not number.isdecimal()]
        raise_faults([f'{path}: image {name} has no number: export it again' for name in faults])
        result.reviewed = {
            name
            for name, number in frames.items()
            if any(start <= int(number) <= stop for start, stop in ranges)
        }
    return result


def _completed(path: Path) -> list[tuple[int, int]]:
    """First and last frame of the jobs whose state is completed."""
    content = read_json(path, 'CVAT (GET /api/jobs?task_id=NUMBER)')
    jobs = content.get('results') if isinstance(content, dict) else content
    try:
        found = [
            (int(job['start_frame']), int(job['stop_frame']), str(job['state']), job['task_id'])
            for job in jobs  # type: ignore[union-attr]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise CASTError(
            f'{path} is not a list of jobs of CVAT: give what GET /api/jobs?task_id=NUMBER returns'
        ) from error
    if isinstance(content, dict) and content.get('next'):
        raise CASTError(f'{path} is only the first page of the jobs: ask with page_size=1000')
    if len({task for *_, task in found}) > 1:
        raise CASTError(f'{path} has jobs of several tasks: ask for those of one task_id')
    return [(start, stop) for start, stop, state, _ in found if state == 'completed']


# ---- Label Studio


def _from_label_studio(path: Path, images: Path, names: set[str]) -> Returned:
    tasks = read_tasks(path)
    handed_out = [
        _task_name(image_names(task, f'{path}, task {task.get("id")}'), names, path)
        for task in tasks
    ]
    result = _collect(read_label_studio_labels(tasks, path, images, progress=False), path)
    result.reviewed = {*result.objects}
    for name, task in zip(handed_out, tasks):
        result.objects.setdefault(name, [])
        who = next((_who(each) for each in task.get('annotations') or [] if _who(each)), '')
        if who:
            result.by[name] = who
    return result


def _who(annotation: Any) -> str:
    """Who made an annotation: the address, else the number on the server."""
    who = annotation.get('completed_by') if isinstance(annotation, dict) else None
    if isinstance(who, dict):
        who = who.get('email') or who.get('id')
    return '' if who is None else str(who)


# ---- Labelme


def _from_labelme(folder: Path, names: set[str]) -> Returned:
    labels, reviewed, faults = [], set(), []
    anchor = Path(folder.absolute().anchor)  # the images may lie anywhere
    for path in labelme_files(folder):
        try:
            image = read_labelme(anchor, path)
            if image is None:
                continue
            image.file_name = _task_name([image.file_name], names, path)
        except CASTError as error:
            faults.append(str(error))
            continue
        labels.append(image)
        flags = read_json(path, 'Labelme').get('flags')
        if isinstance(flags, dict) and flags.get(REVIEWED) is True:
            reviewed.add(image.file_name)
    raise_faults(faults)
    result = _collect(labels, folder)
    result.reviewed = reviewed
    return result


# ---- COCO


def _from_coco(path: Path, images: Path, names: set[str]) -> Returned:
    labels = read_labels(path, lambda _: images)
    result = Returned(notes=labels.mended)
    labels_of = {category['id']: category['name'] for category in labels.content['categories']}
    entries = {image['id']: image for image in labels.content['images']}
    name_of = {key: _task_name([entry['file_name']], names, path) for key, entry in entries.items()}
    result.objects = {name: [] for name in name_of.values()}
    if len(result.objects) < len(name_of):
        raise CASTError(f'{path} lists an image twice: keep one of the two')
    for ann in labels.content['annotations']:
        entry = entries[ann['image_id']]
        rle = encode_segmentation(ann['segmentation'], entry['height'], entry['width'])
        result.objects[name_of[entry['id']]].append(
            ReturnedObject(labels_of[ann['category_id']], text_rle(rle), bool(ann['iscrowd']))
        )
    return result
