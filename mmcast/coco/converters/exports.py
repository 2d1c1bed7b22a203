"""What converters of annotation tools' exports share: finding images, collecting faults, writing.

An export becomes one COCO file for each of its splits: file names relative to the export's folder,
masks as RLE, ``iscrowd`` 0, boxes and areas from the pixels, all ids from 1.
"""

import json
import os
import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from pycocotools import mask as mask_api

from mmcast.coco.converters.instance_maps import coco_of, convert_all
from mmcast.errors import CASTError
from mmcast.files import write_json_files
from mmcast.images import check_size, image_files, name_problem, read_image_size

Item = TypeVar('Item')

# What converters of one file write, in the data root, where nobody says otherwise.
OUT_FILE = 'annotations/instances.json'

# What was left out or mended, as the commands say it behind a number.
NO_PIXEL = 'objects without a pixel left out'
CUT_OFF = 'objects cut off at the border of their image'
RECTANGLES = 'rectangles taken as masks of all their pixels'
MERGED = 'objects put together from parts of one group'
_FAULTS_SHOWN = 5


@dataclass(frozen=True)
class Written:
    """What a COCO file has, and what was left out or mended, by words."""

    images: int
    objects: int
    notes: Counter[str]


@dataclass
class ImageLabels:
    """An image of an export and its objects.

    Args:
        file_name: Relative to the data root, with ``/``.
        height: In pixels, upright.
        width: Likewise.
        objects: Class names and COCO RLEs, in the order of the export.
        notes: What was left out or mended, by words.
    """

    file_name: str
    height: int
    width: int
    objects: list[tuple[str, dict]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, rle: dict) -> None:
        """Appends an object; one without a pixel is counted in its place.

        Args:
            name: Its class.
            rle: Its mask as :func:`mmcast.masks.rle.encode_mask` gives it.
        """
        if mask_api.area(rle):
            self.objects.append((name, rle))
        else:
            self.notes[NO_PIXEL] += 1

    def add_parts(self, parts: Iterable[tuple[str, Hashable, dict]]) -> None:
        """Appends objects; those of one class and one group are parts of one.

        Args:
            parts: Class, group or None, and RLE of each.
        """
        whole: dict[tuple, list[dict]] = {}
        for number, (name, group, rle) in enumerate(parts):
            key = (name, 'part', number) if group is None else (name, 'group', group)
            whole.setdefault(key, []).append(rle)
        for (name, *_), rles in whole.items():
            self.add(name, _merged(rles))
        self.notes[MERGED] += sum(len(rles) > 1 for rles in whole.values())


def _merged(rles: list[dict]) -> dict:
    """The RLE of all pixels of some."""
    if len(rles) == 1:
        return rles[0]
    rle = mask_api.merge(rles)
    return dict(rle, counts=rle['counts'].decode())


def read_all(
    read: Callable[[Item], ImageLabels | None],
    items: Sequence[Item],
    description: str,
    num_workers: int = 0,
    progress: bool = True,
    left_out: str = '',
) -> list[ImageLabels]:
    """``read`` of every item, without the Nones; all faults are raised at once.

    Args:
        read: Gives the labels of one image; picklable.
        items: What to read.
        description: Next to the progress bar.
        num_workers: Processes; 0 reads here.
        progress: Show a progress bar.
        left_out: What a None stands for, in words; a note of the first image has their number.

    Raises:
        CASTError: ``read`` raised one or more.
    """
    found = convert_all(partial(_attempt, read), items, description, num_workers, progress)
    raise_faults([result for result in found if isinstance(result, str)])
    images = [result for result in found if isinstance(result, ImageLabels)]
    if images and len(images) < len(items):
        images[0].notes[left_out] += len(items) - len(images)
    return images


def read_splits(
    read: Callable[[Item], ImageLabels | None],
    splits: Mapping[str, Sequence[Item]],
    folder: Path,
    description: str,
    num_workers: int = 0,
    progress: bool = True,
    left_out: str = '',
) -> dict[Path, list[ImageLabels]]:
    """:func:`read_all` of every split, by the file to write.

    Args:
        read: As there.
        splits: What to read, by split; ``''`` where there are no splits.
        folder: Of the files, ``instances_SPLIT.json`` or ``instances.json``.
        description: Next to the progress bars, behind the split.
        num_workers: As there.
        progress: As there.
        left_out: As there.

    Raises:
        CASTError: ``read`` raised one or more, in whatever splits.
    """
    images: dict[Path, list[ImageLabels]] = {}
    faults = []
    for split, items in splits.items():
        file = folder / (f'instances_{split}.json' if split else 'instances.json')
        bar = ', '.join(filter(None, (split, description)))
        try:
            images[file] = read_all(read, items, bar, num_workers, progress, left_out)
        except CASTError as error:
            faults.append(str(error))
    raise_faults(faults)
    return images


def _attempt(read: Callable[[Item], ImageLabels | None], item: Item) -> ImageLabels | str | None:
    try:
        return read(item)
    except CASTError as error:
        return str(error)


def raise_faults(faults: Sequence[str]) -> None:
    """Raises CASTError with the faults in one line, if there are any."""
    if len(faults) == 1:
        raise CASTError(faults[0])
    if faults:
        more = len(faults) - _FAULTS_SHOWN
        shown = '; '.join(faults[:_FAULTS_SHOWN]) + (f'; and {more} more' if more > 0 else '')
        raise CASTError(f'{len(faults)} faults: {shown}')


def write_exports(
    splits: dict[Path, list[ImageLabels]],
    names: Sequence[str],
    description: str,
    force: bool = False,
    rectangles_are_masks: bool = True,
) -> dict[Path, Written]:
    """Write one COCO file for each split, or none.

    Args:
        splits: The images by the file to write.
        names: All classes; their ids are 1, 2, ... in this order in every file.
        description: For ``info`` of the files.
        force: Replace files with other content.
        rectangles_are_masks: Whether an export of nothing but rectangles is taken too.

    Returns:
        dict: what was written, by file.

    Raises:
        CASTError: there is no image or no object, all objects are rectangles, an image is there
            twice, or a file exists with other content.
    """
    for out_file, images in splits.items():
        _check_split(out_file, images, description)
    counts = {
        out_file: Written(
            len(images),
            sum(len(image.objects) for image in images),
            sum((image.notes for image in images), Counter()),
        )
        for out_file, images in splits.items()
    }
    objects = sum(count.objects for count in counts.values())
    notes = sum((count.notes for count in counts.values()), Counter[str]())
    if not objects:
        left_out = '; '.join(f'{number} {what}' for what, number in notes.items())
        raise CASTError(
            f'{description}: {sum(map(len, splits.values()))} images and not one object with a mask'
            + (f' ({left_out})' if left_out else '')
            + ': export polygons or masks'
        )
    if notes[RECTANGLES] >= objects and not rectangles_are_masks:
        raise CASTError(
            f'{description}: all {objects} objects are rectangles, and masks are needed: label '
            'polygons or masks, or say with --rectangles-are-masks that the objects are rectangles'
        )
    write_json_files(
        {out_file: _coco_of(images, names, description) for out_file, images in splits.items()},
        force,
    )
    return counts


def _check_split(out_file: Path, images: list[ImageLabels], description: str) -> None:
    if not images:
        raise CASTError(f'{description}: no labeled image for {out_file.name}: export it again')
    times = Counter(image.file_name for image in images)
    name, number = times.most_common(1)[0]
    if number > 1:
        raise CASTError(
            f'{description}: the image {name} has labels {number} times: keep one of them'
        )


def _coco_of(images: list[ImageLabels], names: Sequence[str], description: str) -> dict:
    ids = {name: number for number, name in enumerate(names, start=1)}
    converted = (
        (
            dict(file_name=image.file_name, height=image.height, width=image.width),
            [_annotation(rle, ids[name]) for name, rle in image.objects],
        )
        for image in images
    )
    categories = [dict(id=number, name=name, supercategory='none') for name, number in ids.items()]
    return coco_of(converted, categories, description)


def _annotation(rle: dict, category_id: int) -> dict:
    return dict(
        category_id=category_id,
        iscrowd=0,
        area=int(mask_api.area(rle)),
        bbox=mask_api.toBbox(rle).tolist(),
        segmentation=rle,
    )


def visible(paths: Iterable[Path]) -> list[Path]:
    """The paths, sorted, without hidden ones, such as those that a Mac adds (``._a.json``)."""
    return sorted(path for path in paths if not path.name.startswith('.'))


def names_in(images: Iterable[ImageLabels]) -> list[str]:
    """The classes that objects have, sorted."""
    return sorted({name for image in images for name, _ in image.objects})


def read_json(path: Path, tool: str) -> Any:
    """The content of a JSON file, whether or not it begins with a byte order mark.

    Raises:
        CASTError: it cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise CASTError(f'{path} cannot be read ({error.strerror}): check the path') from error
    except (ValueError, RecursionError) as error:
        raise CASTError(
            f'{path} is not valid JSON ({error}): export it from {tool} again'
        ) from error


def read_text(path: Path) -> str:
    """The content of a text file in UTF-8, without a byte order mark.

    Raises:
        CASTError: it cannot be read.
    """
    try:
        return path.read_text(encoding='utf-8-sig')
    except (OSError, ValueError) as error:
        raise CASTError(f'{path} is not a readable text file: export it again') from error


def labeled_image(
    path: Path, root: Path, label_file: Path, size: tuple[Any, Any] | None = None
) -> ImageLabels:
    """The image without its objects.

    Args:
        path: Of the image.
        root: The data root.
        label_file: What says so, for messages.
        size: Height and width that it says.

    Raises:
        CASTError: the image is missing, unreadable, of another size or not below ``root``.
    """
    if not os.path.isfile(path):  # Path.is_file raises for names that are too long
        raise CASTError(f'{path}, an image of {label_file}, is missing: put it there')
    height, width = read_image_size(path)
    if size is not None:
        check_size(path, (height, width), size, label_file)
    name = relative_name(path, root)
    if problem := name_problem(name):
        raise CASTError(f'{label_file}: the image name {name!a} {problem}: rename the file')
    return ImageLabels(name, height, width)


def relative_name(path: Path, root: Path) -> str:
    """``path`` as seen from ``root``, with ``/``; raises CASTError if it is not below it."""
    name = Path(os.path.relpath(path, root)).as_posix()
    if name.startswith('../'):
        common = os.path.commonpath([path.absolute(), root.absolute()])
        raise CASTError(f'{path} is not below {root}: convert the folder of both, {common}')
    return name


class ImageFinder:
    """Finds images of a folder by what a label file calls them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for path in image_files(self.folder):
            found[path.name].append(path)
        return found

    def find(self, names: Sequence[str], label_file: Path) -> Path:
        """The image of the first name that there is: as a path, else at any depth. Paths that end
        in one name are of one image, and looked for before the next name.

        Raises:
            CASTError: there is none, or several have the name.
        """
        paths: dict[str, list[str]] = {}
        for name in names:
            inside = posixpath.normpath(name.replace('\\', '/')).lstrip('/')
            paths.setdefault(posixpath.basename(inside), []).append(inside)
        for name, insides in paths.items():
            for inside in insides:
                if not inside.startswith('../') and os.path.isfile(self.folder / inside):
                    return self.folder / inside
            found = self._by_name.get(name, [])
            if len(found) == 1:
                return found[0]
            if found:
                raise CASTError(
                    f'{found[0]} and {found[1]} have the name of one image of {label_file}: rename '
                    'them before labeling, or move one of the two out of the folder'
                )
        raise CASTError(
            f'{self.folder} has no image {names[-1]} of {label_file}: put it there, or name the '
            'folder of the images with --images'
        )
