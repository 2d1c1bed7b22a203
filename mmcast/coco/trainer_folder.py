"""One folder of images and labels for several trainers, COCO and YOLO-seg side by side.

docs/labels.md has the layout, and why each thing is written as it is.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, Any

import cv2
import numpy as np
import yaml
from pycocotools import mask as mask_api
from rich.progress import track

from mmcast.coco.converters.exports import raise_faults
from mmcast.coco.parallel import map_in_processes
from mmcast.errors import CASTError
from mmcast.files import move_aside, naming, sha256_of_file, sha256_of_json, write_atomically
from mmcast.images import (
    Header,
    ValueRange,
    check_size,
    name_problem,
    parse_value_range,
    read_header,
    read_image,
    readable,
)
from mmcast.locks import hold_lock
from mmcast.masks.outlines import mask_polygon
from mmcast.masks.rle import encode_mask, encode_segmentation

#: Folder of each split; a trainer's own names for them are fixed.
FOLDERS = dict(train='train', val='valid', test='test')
MANIFEST = 'manifest.json'
LINKS = ('auto', 'hardlink', 'symlink', 'copy')
KIND = 'mmcast labels for trainers'
ANNOTATIONS = '_annotations.coco.json'
# What was left out, as the command says it behind a number.
NO_PIXEL = 'objects without a pixel left out'
REPEATED = 'repeated objects left out'
JOINED = 'objects in several parts, which lines join where rfdetr and Ultralytics read YOLO'
GROWN = (
    'of these grow there by more than a tenth of their pixels: use COCO, or leave such labels out '
    '(--min-visible, --min-area)'
)
CONVERTED = 'images written upright and in 8 bits as PNG'
_JPEG_END = b'\xff\xd9'
_DIGITS = 9  # of a coordinate: with six, outlines move by more than a pixel's edge
_GROWN = 0.1  # of an object's pixels


@dataclass
class SourceImage:
    """An image as its label file lists it.

    Args:
        id: in that file.
        path: of the image.
        file_name: in the label file.
        height: in pixels, upright.
        width: likewise.
        header: of the image, once it was read.
    """

    id: int
    path: Path
    file_name: str
    height: int
    width: int
    header: Header | None = None

    @property
    def converted(self) -> bool:
        """Whether it cannot be taken as it is: not every reader turns images as EXIF says, and
        they differ in what they make of more than 8 bits.
        """
        return self.header is not None and (self.header.orientation != 1 or self.header.deep)


@dataclass
class LabelSource:
    """Images whose labels are of one origin.

    Args:
        name: of the label file, for messages.
        origin: 'human' or 'pseudo'.
        images: those to write.
        annotations: the objects of one of them, as COCO's annotations with ``category_id`` from 1
            to N, in their order; called once for each.
    """

    name: str
    origin: str
    images: list[SourceImage]
    annotations: Callable[[SourceImage], Sequence[dict]]


@dataclass
class SplitCounts:
    """What a split has.

    Args:
        images: number by origin.
        empty: images without objects.
        objects: number by class name and origin.
        notes: what was left out or changed, by words.
    """

    images: Counter[str] = field(default_factory=Counter)
    empty: int = 0
    objects: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)


def write_trainer_folder(
    out_dir: str | os.PathLike,
    names: Sequence[str],
    splits: Mapping[str, Sequence[LabelSource]],
    about: Mapping[str, Any],
    *,
    link: str = 'auto',
    value_range: ValueRange = None,
    num_workers: int = 0,
    force: bool = False,
    progress: bool = True,
) -> dict[str, SplitCounts] | None:
    """Writes the folder, whole or not at all.

    Until it is whole it is called ``<out_dir>.partial``; an interrupted call is resumed there by
    the same call. One image with its labels is held at a time.

    Args:
        out_dir: the folder.
        names: of the classes, whose ids are 1, 2, ... in this order.
        splits: what to write, by ``train``, ``val`` and ``test``.
        about: what the labels are made of, for the manifest; JSON. Two calls with equal ``about``
            and the same image files write the same folder.
        link: how images get there: ``hardlink``, ``symlink``, ``copy``, or ``auto``: hard links
            where the file system has them, else copies. Files that a trainer may change are copied.
        value_range: black and white in images of more than 8 bits; without it they are refused.
        num_workers: processes that trace outlines; 0 does so here.
        force: move an existing folder aside.
        progress: show progress bars.

    Returns:
        What is in each split; None if the folder was complete already.

    Raises:
        CASTError: the folder holds something else, or is being written by another process; an
            image is missing, unreadable, of another size than its label file says, or in two
            splits.
    """
    folder = Path(os.path.realpath(out_dir))  # of a link the folder that it leads to
    check_link(link)
    about = json.loads(json.dumps(dict(about, classes=list(names), link=link)))
    fingerprint = sha256_of_json([about, _image_files(splits)])
    if _read_manifest(folder).get('fingerprint') == fingerprint:
        return None
    check_vacant(folder, force)
    _read_headers(splits, value_range, progress)
    _check_splits(splits)
    partial_folder = folder.with_name(f'{folder.name}.partial')
    lock = partial_folder / '.lock'
    in_use = f'{partial_folder} is being written by another run (process {{owner}}); wait for it'
    with naming(folder, partial_folder):
        with hold_lock(lock, in_use):
            writer = _Writer(partial_folder, names, link, value_range, num_workers, progress)
            writer.begin(fingerprint)
            counts = {split: writer.write(split, sources) for split, sources in splits.items()}
            writer.finish(fingerprint, about, counts)
        lock.unlink()
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        move_aside(folder)
        os.rename(partial_folder, folder)
    return counts


def check_link(link: str) -> None:
    """Raises CASTError for a way to link images that there is not."""
    if link not in LINKS:
        raise CASTError(f'link is {link}: give one of {", ".join(LINKS)}')


def _image_files(splits: Mapping[str, Sequence[LabelSource]]) -> list:
    """What tells the image files from others of their names, without reading them."""
    return [
        [split, source.origin, [_size_and_time(image.path) for image in source.images]]
        for split, sources in splits.items()
        for source in sources
    ]


def _size_and_time(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None  # those that are missing are all named later
    return status.st_size, status.st_mtime_ns


def _read_manifest(folder: Path) -> dict:
    """A folder's manifest; empty where there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def check_vacant(folder: Path, force: bool) -> None:
    """Raises CASTError if something is there that may not be moved aside."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if (folder.exists() or folder.is_symlink()) and not force:
        raise CASTError(
            f'{folder} exists with other content: name another folder, or move this one aside with '
            '--force'
        )


def _read_headers(
    splits: Mapping[str, Sequence[LabelSource]], value_range: ValueRange, progress: bool
) -> None:
    """Fills in the headers; raises CASTError with all images that cannot be used."""
    images = [
        (source.name, image)
        for sources in splits.values()
        for source in sources
        for image in source.images
    ]
    faults = []
    for name, image in track(images, f'Checking {len(images)} images', disable=not progress):
        try:
            _read_one_header(image, name, value_range)
        except CASTError as error:
            faults.append(str(error))
    raise_faults(faults)


def _read_one_header(image: SourceImage, label_file: str, value_range: ValueRange) -> None:
    if not os.path.isfile(image.path):
        raise CASTError(
            f'image {readable(image.path)} of {label_file} not found: give the folder of its images'
        )
    if problem := name_problem(image.path.name):
        raise CASTError(f'{label_file}: the image name {image.file_name!a} {problem}: rename it')
    header = read_header(image.path)
    check_size(image.path, header.size, (image.height, image.width), label_file)
    if header.deep and parse_value_range(value_range) is None:
        raise CASTError(
            f'image {readable(image.path)} has more than 8 bits, which trainers read differently: '
            'say which values are black and white with value_range'
        )
    image.header = header


def _check_splits(splits: Mapping[str, Sequence[LabelSource]]) -> None:
    """Raises CASTError if two splits have an image in common."""
    paths = {
        split: [image.path for source in sources for image in source.images]
        for split, sources in splits.items()
    }
    for group in same_images(paths):
        (split, (path, *_)), (other_split, (other, *_)) = [*group.items()][:2]
        raise CASTError(
            f'{readable(path)} ({split}) and {readable(other)} ({other_split}) are the same '
            'image: figures on it would say little; take it out of one of the two'
        )


def same_images(groups: Mapping[str, Sequence[Path]]) -> Iterator[dict[str, list[Path]]]:
    """Images that several groups have, whatever they are called: files of the same bytes.

    Args:
        groups: the files by the name of their group; those that are not there are left out.

    Yields:
        Equal files, by the names of their groups, of which there are two or more.
    """
    by_size: dict[int, list[tuple[str, Path]]] = {}
    for name, paths in groups.items():
        for path in filter(os.path.isfile, paths):
            by_size.setdefault(path.stat().st_size, []).append((name, path))
    for found in by_size.values():
        if len({name for name, _ in found}) < 2:
            continue
        equal: dict[str, dict[str, list[Path]]] = {}
        for name, path in found:
            group = equal.setdefault(sha256_of_file(path), {})
            group.setdefault(name, []).append(path)
        yield from (group for group in equal.values() if len(group) > 1)


def flat_names(images: Sequence[SourceImage]) -> list[str]:
    """File names for one folder: those without folders where they are unique, with them where not.

    A label file is called as its image, so that names have to differ before the extension, and on
    systems that take capitals for small letters.
    """
    names = []
    plain = [_target_name(image, PurePosixPath(image.file_name).name) for image in images]
    times = Counter(_key(name) for name in plain)
    taken = {key for key, number in times.items() if number == 1}
    for image, name in zip(images, plain):
        if times[_key(name)] > 1:
            parts = [
                part for part in PurePosixPath(image.file_name).parts if part not in ('..', '/')
            ]
            name = wanted = _target_name(image, '_'.join(parts))
            number = 1
            while _key(name) in taken:
                number += 1
                stem, suffix = os.path.splitext(wanted)
                name = f'{stem}-{number}{suffix}'
            taken.add(_key(name))
        names.append(name)
    return names


def _target_name(image: SourceImage, name: str) -> str:
    return os.path.splitext(name)[0] + '.png' if image.converted else name


def _key(name: str) -> str:
    return os.path.splitext(name)[0].casefold()


class _Writer:
    """Writes the splits into a folder that is not there yet, or was begun by the same call.

    Args:
        folder: to write to.
        names: of the classes.
        link: see :func:`write_trainer_folder`, as ``value_range``, ``num_workers``, ``progress``.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        link: str,
        value_range: ValueRange,
        num_workers: int,
        progress: bool,
    ) -> None:
        self.folder, self.names, self.link = folder, list(names), link
        self.value_range, self.num_workers, self.progress = value_range, num_workers, progress
        self.origins: dict[str, dict] = {}

    def begin(self, fingerprint: str) -> None:
        """Clears the folder, but for what an interrupted call of the same fingerprint left.

        Raises:
            CASTError: it is no such folder.
        """
        marker, wanted = self.folder / MANIFEST, dict(kind=KIND, fingerprint=fingerprint)
        there = [path for path in self.folder.iterdir() if path.name != '.lock']
        found = _read_manifest(self.folder)
        if there and found.get('kind') != KIND:
            raise CASTError(f'{self.folder} is in the way: move it elsewhere')
        if found.get('fingerprint') != fingerprint:
            for path in there:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_atomically(marker, json.dumps(wanted))

    def write(self, split: str, sources: Sequence[LabelSource]) -> SplitCounts:
        """Writes images, labels and the COCO file of a split."""
        root, counts = self.folder / FOLDERS[split], SplitCounts()
        for name in ('images', 'labels'):
            (root / name).mkdir(parents=True, exist_ok=True)
        images = [(source, image) for source in sources for image in source.images]
        names = flat_names([image for _, image in images])
        described = map_in_processes(
            _describe,
            ((image.height, image.width, source.annotations(image)) for source, image in images),
            None,
            self.num_workers,
            '--num-workers',
        )
        items = zip(images, names, described, strict=True)
        bar = f'Writing {len(images)} images of {root.name}'
        with _CocoFile(root / ANNOTATIONS, self.names) as file:
            for (source, image), name, labels in track(
                items, bar, total=len(images), disable=not self.progress
            ):
                self._place(image, root / 'images' / name)
                text = root / 'labels' / f'{os.path.splitext(name)[0]}.txt'
                text.write_text(labels.lines)
                told = dict(origin=source.origin, source_file=image.file_name)
                file.add(f'images/{name}', image, told, labels.annotations)
                self.origins[f'{root.name}/images/{name}'] = told
                _count(counts, source.origin, labels, self.names)
                counts.notes[CONVERTED] += image.converted
        counts.notes = +counts.notes
        return counts

    def finish(
        self, fingerprint: str, about: Mapping[str, Any], counts: Mapping[str, SplitCounts]
    ) -> None:
        """Writes ``data.yaml`` and the manifest, and waits until all is on the disk."""
        folders = {split: f'{FOLDERS[split]}/images' for split in counts}
        content = dict(folders, names=dict(enumerate(self.names)))
        (self.folder / 'data.yaml').write_text(
            yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding='utf-8'
        )
        manifest = dict(
            kind=KIND,
            fingerprint=fingerprint,
            **about,
            counts={split: _as_json(count) for split, count in counts.items()},
            images=self.origins,
        )
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        write_atomically(self.folder / MANIFEST, text)
        if hasattr(os, 'sync'):
            os.sync()

    def _place(self, image: SourceImage, target: Path) -> None:
        """Puts an image at its place, unless an interrupted call did."""
        if image.converted:
            if not target.exists():
                pixels = read_image(image.path, self.value_range)
                write_atomically(target, cv2.imencode('.png', pixels[..., ::-1])[1].tobytes())
            return
        size = image.path.stat().st_size
        if target.exists() and target.stat().st_size == size:
            return
        target.unlink(missing_ok=True)
        if self.link == 'copy' or _may_be_changed(image):
            _copy(image.path, target)
        elif self.link == 'symlink':
            target.symlink_to(image.path.resolve())
        else:
            self._hard_link(image.path, target)

    def _hard_link(self, path: Path, target: Path) -> None:
        try:
            os.link(path.resolve(), target)
        except OSError as error:
            if self.link == 'hardlink':
                raise CASTError(
                    f'{readable(path)} cannot be hard linked to {target.parent} '
                    f'({error.strerror}): use copy or symlink'
                ) from error
            _copy(path, target)


def _copy(path: Path, target: Path) -> None:
    temporary = target.with_name(f'.{target.name[:50]}.partial')
    shutil.copyfile(path, temporary)
    os.replace(temporary, target)


def _may_be_changed(image: SourceImage) -> bool:
    """Whether Ultralytics repairs the file in its place: a JPEG that does not end as it should."""
    if image.header is None or image.header.format != 'JPEG':
        return False
    with image.path.open('rb') as file:
        file.seek(-len(_JPEG_END), os.SEEK_END)
        return file.read() != _JPEG_END


@dataclass(frozen=True)
class _Labels:
    """The labels of an image, both ways."""

    annotations: list[dict]
    lines: str
    notes: Counter[str]


def _describe(item: tuple[int, int, Sequence[dict]], _: None) -> _Labels:
    """The labels of an image of this height and width.

    Every mask is drawn, so that both ways say the same pixels, whatever it came as.
    """
    height, width, annotations = item
    found: dict[tuple[int, str], dict] = {}
    notes: Counter[str] = Counter()
    lines = []
    for annotation in annotations:
        rle = encode_segmentation(annotation['segmentation'], height, width)
        mask = mask_api.decode(rle).astype(bool)
        area = int(np.count_nonzero(mask))
        if not area:
            notes[NO_PIXEL] += 1
            continue
        rle = encode_mask(mask)
        key = annotation['category_id'], rle['counts']
        if key in found:
            notes[REPEATED] += 1
            continue
        bbox = mask_api.toBbox(rle).tolist()
        found[key] = dict(annotation, iscrowd=0, area=area, bbox=bbox, segmentation=rle)
        polygon = mask_polygon(mask)
        added = _pixels_of_lines(polygon, mask)
        notes[JOINED] += added > 0
        notes[GROWN] += added > area * _GROWN
        values = (polygon / (width, height)).ravel().tolist()
        texts = [f'{value:.{_DIGITS}g}' for value in values]
        lines.append(' '.join([str(annotation['category_id'] - 1), *texts]) + '\n')
    return _Labels([*found.values()], ''.join(lines), +notes)


def _pixels_of_lines(polygon: np.ndarray, mask: np.ndarray) -> int:
    """By how many pixels an object grows where a reader draws the lines between its parts."""
    pixels = polygon.astype(np.int32)
    left, top = pixels.min(0).tolist()
    right, bottom = (pixels.max(0) + 1).tolist()
    drawn = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(drawn, [pixels - (left, top)], 1)
    return int(np.count_nonzero(drawn.astype(bool) & ~mask[top:bottom, left:right]))


def _count(counts: SplitCounts, origin: str, labels: _Labels, names: Sequence[str]) -> None:
    counts.images[origin] += 1
    counts.empty += not labels.annotations
    for annotation in labels.annotations:
        counts.objects[names[annotation['category_id'] - 1], origin] += 1
    counts.notes += labels.notes


def _as_json(counts: SplitCounts) -> dict:
    objects: dict[str, dict[str, int]] = {}
    for (name, origin), number in counts.objects.items():
        objects.setdefault(name, {})[origin] = number
    return dict(
        images=dict(counts.images), empty=counts.empty, objects=objects, notes=dict(counts.notes)
    )


class _CocoFile:
    """A COCO file, written an image at a time; ids count from 1.

    Args:
        path: of the file.
        names: of the classes.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        # RF-DETR leaves out a class that others name as theirs and that has no objects.
        above = next(word for word in ('none', '-', '--') if word not in names)
        self.path = path
        self.categories = [
            dict(id=number, name=name, supercategory=above)
            for number, name in enumerate(names, start=1)
        ]
        self.images = self.objects = 0

    def __enter__(self) -> '_CocoFile':
        self.file: IO[str] = self.path.open('w', encoding='utf-8')
        # The objects follow all images.
        self.waiting: IO[str] = TemporaryFile('w+', encoding='utf-8', dir=self.path.parent)
        info = dict(description=KIND)
        self.file.write(f'{{"info": {json.dumps(info)},\n')
        self.file.write(f'"categories": {json.dumps(self.categories)},\n"images": [')
        return self

    def add(self, file_name: str, image: SourceImage, told: dict, annotations: list[dict]) -> None:
        self.images += 1
        entry = dict(id=self.images, file_name=file_name, height=image.height, width=image.width)
        self._write(self.file, self.images, dict(entry, **told))
        for annotation in annotations:
            self.objects += 1
            numbers = dict(id=self.objects, image_id=self.images)
            self._write(
                self.waiting, self.objects, dict(numbers, **annotation, origin=told['origin'])
            )

    def _write(self, file: IO[str], number: int, item: dict) -> None:
        file.write((',\n' if number > 1 else '\n') + json.dumps(item))

    def __exit__(self, kind: object, *_: object) -> None:
        with self.file, self.waiting:
            if kind is None:
                self.file.write('],\n"annotations": [')
                self.waiting.seek(0)
                shutil.copyfileobj(self.waiting, self.file)
                self.file.write(']}\n')
