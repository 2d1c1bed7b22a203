"""Pascal VOC's SegmentationObject and SegmentationClass to COCO JSON."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mmcast.coco.converters.exports import (
    ImageLabels,
    Written,
    labeled_image,
    read_splits,
    read_text,
    visible,
    write_exports,
)
from mmcast.coco.converters.instance_maps import unreadable
from mmcast.errors import CASTError
from mmcast.images import IMAGE_SUFFIXES, open_image
from mmcast.masks.rle import encode_mask

VOID = 255  # borders of objects, and what nobody labeled
# fmt: off
_CLASSES = [
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
    'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train',
    'tvmonitor',
]
# fmt: on
_BACKGROUND = ('background', '_background_')
LAST = VOID - 1  # of the numbers that objects have
_FULL = (
    f'images have {LAST} objects, as many as such files can number: where an image has more, '
    'tools join some and lose others (datumaro 1.13.12), so export as COCO instead'
)
_NO_MASK = 'images are listed and have no mask: taken as images without objects'
_Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassTable:
    """What the values of SegmentationClass mean.

    Args:
        names: By index, background first.
        colours: Of those names for which the file has one.
    """

    names: list[str]
    colours: dict[_Colour, int]

    @property
    def classes(self) -> list[str]:
        return [name for name in self.names if name not in _BACKGROUND]


def convert_voc(
    root: str | os.PathLike,
    out_dir: str | os.PathLike | None = None,
    num_workers: int = 0,
    force: bool = False,
    progress: bool = True,
) -> dict[Path, Written]:
    """Convert VOC's instance masks to one COCO file for each list of images.

    An object is the pixels of one value of ``SegmentationObject``; its class is their value in
    ``SegmentationClass``. 0 is background; 255, the border around objects, belongs to none. Both
    may be palette images, as VOC's own, grey ones, or RGB in VOC's colours or those of
    ``labelmap.txt``, as CVAT and datumaro write them.

    Args:
        root: Folder with ``JPEGImages/``, ``SegmentationObject/``, ``SegmentationClass/`` and
            perhaps ``ImageSets/Segmentation/*.txt`` and ``labelmap.txt`` or ``class_names.txt``.
        out_dir: Folder of ``instances_LIST.json`` for each list, or of ``instances.json`` where
            there are none; default ``annotations`` in ``root``. ``trainval`` is not converted if
            ``train`` and ``val`` are.
        num_workers: Processes that read the masks; 0 reads them here.
        force: Replace files with other content.
        progress: Show a progress bar.

    Returns:
        As :func:`write_exports`. Categories are those of ``labelmap.txt`` or ``class_names.txt``
        without background, else VOC's 20, numbered from 1 in their order.

    Raises:
        CASTError: a file is missing or cannot be used, sizes differ, or an object has no class or
            several, with all such faults; or see :func:`write_exports`.
    """
    root = Path(root)
    for part in ('JPEGImages', 'SegmentationObject', 'SegmentationClass'):
        if not (root / part).is_dir():
            raise CASTError(
                f'{root / part} is missing: give the folder that holds JPEGImages, '
                'SegmentationObject and SegmentationClass; Annotations has boxes only'
            )
    table = read_class_table(root)
    folder = Path(out_dir) if out_dir else root / 'annotations'
    read = partial(read_voc, root, table)
    description = f'Pascal VOC, {root}'
    splits = read_splits(read, _lists(root), folder, description, num_workers, progress)
    return write_exports(splits, table.classes, description, force)


def _lists(root: Path) -> dict[str, list[str]]:
    """Names of images by list."""
    files = {path.stem: path for path in visible((root / 'ImageSets/Segmentation').glob('*.txt'))}
    if {'train', 'val'} <= set(files):
        files.pop('trainval', None)
    if not files:
        return {'': [path.stem for path in visible((root / 'SegmentationObject').glob('*.png'))]}
    lists = {name: _lines(path) for name, path in files.items()}
    return {name: lines for name, lines in lists.items() if lines}


def _lines(path: Path) -> list[str]:
    lines = read_text(path).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def read_class_table(root: Path) -> ClassTable:
    """The classes of an export, from ``labelmap.txt`` (CVAT, datumaro) or ``class_names.txt``
    (Labelme), or VOC's own.

    Raises:
        CASTError: a file is malformed.
    """
    label_map, class_names = root / 'labelmap.txt', root / 'class_names.txt'
    if class_names.is_file() and not label_map.is_file():
        return ClassTable([name for name in _lines(class_names) if name != '__ignore__'], {})
    if not label_map.is_file():
        return ClassTable(['background', *_CLASSES], {})
    colours: dict[str, _Colour] = {}
    names: list[str] = []
    for line in _lines(label_map):
        name, _, rest = line.partition(':')
        colour = rest.partition(':')[0]
        if colour:
            try:
                red, green, blue = map(int, colour.split(','))
            except ValueError as error:
                raise CASTError(f'{label_map}: {line} has no colour r,g,b: export again') from error
            colours[name] = red, green, blue
        names.append(name)
    if not names or len(set(names)) < len(names):
        raise CASTError(f'{label_map} names no class, or one twice: export it again')
    if colours or names[0] not in _BACKGROUND:
        names = ['background', *(name for name in names if name not in _BACKGROUND)]
    return ClassTable(
        names,
        {colour: names.index(name) if name in names else 0 for name, colour in colours.items()},
    )


def voc_colours(number: int = 256) -> np.ndarray:
    """VOC's colours by index, (number, 3) uint8: the bits of an index, taken by turns, are the
    highest bits of red, green and blue.
    """
    index = np.arange(number)
    colours = np.zeros((number, 3), int)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def read_voc(root: Path, table: ClassTable, stem: str) -> ImageLabels:
    """The labels of one image.

    Raises:
        CASTError: it cannot be used.
    """
    objects_file = root / 'SegmentationObject' / f'{stem}.png'
    classes_file = root / 'SegmentationClass' / f'{stem}.png'
    image = labeled_image(_image_of(root, stem), root, objects_file)
    if not os.path.isfile(objects_file) and not os.path.isfile(classes_file):
        image.notes[_NO_MASK] += 1
        return image
    objects, classes = _values(objects_file, None), _values(classes_file, table)
    for path, values in ((objects_file, objects), (classes_file, classes)):
        if values.shape != (image.height, image.width):
            raise CASTError(
                f'{path} is {values.shape[1]}x{values.shape[0]}, its image '
                f'{image.width}x{image.height}: take both from one export'
            )
    numbers = np.unique(objects).tolist()
    image.notes[_FULL] += LAST in numbers
    for value in numbers:
        if value not in (0, VOID):
            mask = objects == value
            name = _class_of(classes[mask], table, f'{classes_file}, object {value}')
            image.add(name, encode_mask(mask))
    return image


def _image_of(root: Path, stem: str) -> Path:
    folder = root / 'JPEGImages'
    found = [
        folder / (stem + end) for end in IMAGE_SUFFIXES if os.path.isfile(folder / (stem + end))
    ]
    if len(found) > 1:
        raise CASTError(f'{found[0]} and {found[1]} are both images of {stem}: keep one of them')
    return found[0] if found else folder / f'{stem}.jpg'


def _values(path: Path, table: ClassTable | None) -> np.ndarray:
    """The indices of a mask file, (H, W) int; of colours, by ``table``, or, of objects, in VOC's.

    A colour of an object that VOC does not have is an index of its own, above 255.
    """
    try:
        with open_image(path) as image:
            mode = image.mode
            coloured = mode not in ('P', 'L', 'I', 'I;16', '1') or (
                mode == 'P' and table is not None and bool(table.colours)
            )
            pixels = np.asarray(image.convert('RGB') if coloured else image).astype(int)
    except (OSError, SyntaxError) as error:
        raise unreadable(path) from error
    if not coloured:
        return pixels
    packed = pixels @ (1 << 16, 1 << 8, 1)
    found, where = np.unique(packed, return_inverse=True)
    indices = [
        _index_of((value >> 16, value >> 8 & 255, value & 255), table, path)
        for value in found.tolist()
    ]
    return np.array(indices)[where].reshape(packed.shape)


_VOC_INDEX = {tuple(colour): index for index, colour in enumerate(voc_colours().tolist())}


def _index_of(colour: _Colour, table: ClassTable | None, path: Path) -> int:
    if table is not None and colour in table.colours:
        return table.colours[colour]
    index = _VOC_INDEX.get(colour)
    if table is None:
        return 256 + (colour[0] << 16 | colour[1] << 8 | colour[2]) if index is None else index
    if index is None or (table.colours and index not in (0, VOID)):
        raise CASTError(
            f'{path}: the colour {colour} is of no class: export again with labelmap.txt'
        )
    return index


def _class_of(values: np.ndarray, table: ClassTable, where: str) -> str:
    """The one class among the pixels of an object."""
    found = [value for value in np.unique(values).tolist() if value not in (0, VOID)]
    if len(found) != 1:
        names = ', '.join(map(str, found)) or 'none'
        raise CASTError(f'{where} has the classes {names}, not one: export both masks again')
    if found[0] >= len(table.names):
        raise CASTError(
            f'{where} has class {found[0]}, and {len(table.names)} names, 0 to '
            f'{len(table.names) - 1}, are known: put labelmap.txt into the folder'
        )
    return table.names[found[0]]
