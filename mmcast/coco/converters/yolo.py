"""YOLO-seg, one text file of polygons for each image, to COCO JSON."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from mmcast.coco.converters.exports import (
    CUT_OFF,
    ImageLabels,
    Written,
    labeled_image,
    raise_faults,
    read_splits,
    read_text,
    visible,
    write_exports,
)
from mmcast.coco.converters.shapes import checked_points, polygon_rle, reaches_beyond
from mmcast.errors import CASTError
from mmcast.images import IMAGE_SUFFIXES, image_files
from mmcast.masks.rle import encode_mask

SPLITS = ('train', 'val', 'test')
_NOTHING = None, '', '~', 'null'  # in YAML
_BOX = 5  # numbers of a line: class, centre, width, height
_REPEATED = 'repeated lines left out'
_NO_TEST = 'folder of test images is named and not there, as in exports of Roboflow without one'
_UNLABELED = 'images without a text file left out (an empty one says that there is no object)'

Pixel = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """Where an export's images are, and what its classes are called.

    Args:
        root: The data root.
        source: The file with the names.
        names: Of class 0, 1, ...
        splits: Images by split; one of the name ``''`` where there are no splits.
        notes: What was left out, by words.
    """

    root: Path
    source: Path
    names: list[str]
    splits: dict[str, list[Path]]
    notes: Counter[str] = field(default_factory=Counter)


def convert_yolo(
    source: str | os.PathLike,
    out_dir: str | os.PathLike | None = None,
    pixel_edges: bool = False,
    num_workers: int = 0,
    force: bool = False,
    progress: bool = True,
) -> dict[Path, Written]:
    """Convert a YOLO-seg data set to one COCO file for each split.

    A line is an object: its class and a polygon in normalised coordinates. Polygons are drawn as
    Ultralytics (8.4) does in training, coordinates rounded down to pixels and outlines part of
    the object, but for two things. What the file's digits cut off is added before rounding down:
    0.08333 of 48 pixels is 4, not 3. And lines there and back that join the parts of one object, or
    a hole to its outline, are no pixels. A polygon inside of another one of its line is a hole.
    Polygons along the edges of pixels, as people draw them, come out half a pixel larger on all
    sides, as in training with Ultralytics; ``pixel_edges`` draws them as COCO's API does.

    Objects stay in the order of the lines and may overlap. An image with an empty text file has no
    object; one without a text file is not labeled.

    Args:
        source: ``data.yaml``, or its folder; or, as Label Studio exports, a folder with
            ``classes.txt``, ``images/`` and ``labels/``.
        out_dir: Folder of ``instances_{train,val,test}.json``, or ``instances.json`` where there
            are no splits; default ``annotations`` beside the source.
        pixel_edges: Polygons run along edges of pixels, not through centres.
        num_workers: Processes that read the files; 0 reads them here.
        force: Replace files with other content.
        progress: Show a progress bar.

    Returns:
        As :func:`write_exports`. Category ids are class numbers + 1, with all names.

    Raises:
        CASTError: a file cannot be used, with all such faults; lines are boxes; or see
            :func:`write_exports`.
    """
    layout = read_layout(Path(source))
    folder = Path(out_dir) if out_dir else layout.root / 'annotations'
    read = partial(read_yolo, layout, pixel_edges)
    description = f'YOLO-seg, {layout.source}'
    splits = read_splits(
        read, layout.splits, folder, description, num_workers, progress, left_out=_UNLABELED
    )
    first = next(iter(splits.values()))
    if first:
        first[0].notes += layout.notes
    return write_exports(splits, layout.names, description, force)


def read_layout(source: Path) -> Layout:
    """Finds the parts of an export.

    Raises:
        CASTError: there is no ``data.yaml`` or ``classes.txt``, or it names no classes or images.
    """
    layout = _of_folder(source) if source.is_dir() else _of_yaml(source)
    twice = [name for name, number in Counter(layout.names).items() if number > 1]
    if not layout.names or twice:
        what = f'names the class {twice[0]} twice' if twice else 'names no classes'
        raise CASTError(f'{layout.source} {what}: each class has a name of its own')
    if not any(layout.splits.values()):
        raise CASTError(f'{layout.source}: no image found for it: export it with its images')
    return layout


def _of_folder(folder: Path) -> Layout:
    found = visible([*folder.glob('*.yaml'), *folder.glob('*.yml')])
    if len(found) > 1:
        raise CASTError(f'{folder} has {found[0].name} and {found[1].name}: name one of them')
    if found:
        return _of_yaml(found[0])
    classes = folder / 'classes.txt'
    if not classes.is_file():
        raise CASTError(f'{folder} has neither data.yaml nor classes.txt: export it again')
    names = [name.strip() for name in read_text(classes).split('\n') if name.strip()]
    return Layout(folder, classes, names, {'': image_files(folder / 'images')})


def _of_yaml(source: Path) -> Layout:
    content = _read_yaml(source)
    root = source.parent
    base = root / str(content.get('path') or '')
    if not base.is_dir():  # written on another machine, or relative to Ultralytics' own folder
        base = root
    found = {split: content.get(split) for split in SPLITS}
    if 'val' not in content:
        found['val'] = content.get('validation')
    entries = {
        split: entry if isinstance(entry, list) else [entry]
        for split, entry in found.items()
        if entry not in _NOTHING
    }
    notes: Counter[str] = Counter()
    if 'test' in entries and not any(_places(name, base, root) for name in entries['test']):
        notes[_NO_TEST] += 1
        del entries['test']
    splits = {split: _images(names, base, root, source) for split, names in entries.items()}
    if not splits:  # supervision's lists names alone
        folders = dict(train='train', val='valid', test='test')
        splits = {split: image_files(root / name / 'images') for split, name in folders.items()}
        splits = {split: images for split, images in splits.items() if images}
    return Layout(root, source, _names(content, source), splits, notes)


def _read_yaml(path: Path) -> dict:
    try:
        # Texts alone: a class called no is neither False nor called False.
        content = yaml.load(path.read_text(encoding='utf-8-sig'), yaml.BaseLoader)
    except OSError as error:
        raise CASTError(f'{path} cannot be read ({error.strerror}): check the path') from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        line = ' '.join(str(error).split())
        raise CASTError(f'{path} is not valid YAML ({line}): export it again') from error
    if not isinstance(content, dict):
        raise CASTError(f'{path} is not a data.yaml of YOLO: export it again')
    return content


def _names(content: dict, source: Path) -> list[str]:
    names = content.get('names')
    if isinstance(names, dict):
        try:
            names = {int(number): name for number, name in names.items()}
        except (TypeError, ValueError):
            names = {}
        if sorted(names) != list(range(len(names))):
            raise CASTError(f'{source}: names are not numbered 0, 1, 2, ...: number them so')
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list):
        raise CASTError(f'{source} has no list of names: export it again')
    return [str(name) for name in names]


def _places(name: Any, base: Path, root: Path) -> list[Path]:
    """Where an entry of data.yaml is; Roboflow writes ../train/images and means train/images."""
    text = str(name).replace('\\', '/')
    places = [base / text, root / text, root / text.removeprefix('../')]
    return [Path(os.path.normpath(place)) for place in places if os.path.exists(place)]


def _images(names: list, base: Path, root: Path, source: Path) -> list[Path]:
    """The images of a split, in folders and text files with their paths."""
    images: list[Path] = []
    for name in names:
        places = _places(name, base, root)
        if not places:
            raise CASTError(f'{source}: {name} is not there: unpack the export whole')
        place = places[0]
        if place.is_dir():
            images += image_files(place)
        else:
            images += [
                Path(os.path.normpath(place.parent / line.strip()))
                for line in read_text(place).splitlines()
                if line.strip()
            ]
    return list(dict.fromkeys(images))


def _label_file(image: Path) -> Path:
    """``labels`` for the last folder ``images`` of the path, as in Ultralytics."""
    parts = list(image.parts)
    for number in range(len(parts) - 2, -1, -1):
        if parts[number] == 'images':
            parts[number] = 'labels'
            break
    return Path(*parts).with_suffix('.txt')


def read_yolo(layout: Layout, pixel_edges: bool, path: Path) -> ImageLabels | None:
    """The labels of one image; None if it has no text file.

    Raises:
        CASTError: with all faults of its lines.
    """
    label_file = _label_file(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise CASTError(f'{path} is no image ({" ".join(IMAGE_SUFFIXES)}): take it out of the list')
    if not os.path.isfile(label_file):
        return None
    image = labeled_image(path, layout.root, label_file)
    lines = read_text(label_file).splitlines()
    rows = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    boxes = [number for number, row in rows if len(row) == _BOX]
    if boxes:
        raise CASTError(
            f'{label_file}: {len(boxes)} of {len(rows)} lines, such as line {boxes[0]}, are boxes '
            'of five numbers, and masks are needed: export polygons (YOLO segmentation)'
        )
    seen: set[tuple] = set()
    faults = []
    for number, row in rows:
        if tuple(row) in seen:
            image.notes[_REPEATED] += 1
            continue
        seen.add(tuple(row))
        try:
            where = f'{label_file}, line {number}'
            name, points = _object(row, layout.names, image, where)
            if pixel_edges:
                rle = polygon_rle(points, image.height, image.width)
            else:
                rle = _through_centres(row, points, image.height, image.width)
            image.add(name, rle)
        except CASTError as error:
            faults.append(str(error))
    raise_faults(faults)
    return image


def _object(
    row: list[str], names: Sequence[str], image: ImageLabels, where: str
) -> tuple[str, np.ndarray]:
    """Class name and polygon of a line, (N, 2) in pixels."""
    try:
        label, values = float(row[0]), [float(text) for text in row[1:]]
    except ValueError as error:
        raise CASTError(f'{where} is not a class and numbers: export it again') from error
    if not label.is_integer() or not 0 <= label < len(names):
        raise CASTError(
            f'{where}: class {row[0]} is none of the {len(names)} names, 0 to {len(names) - 1}: '
            'add its name'
        )
    if len(values) % 2 or len(values) < 6:
        raise CASTError(
            f'{where} has {len(values)} numbers behind the class, not pairs of x and y of three or '
            'more points: predictions have to be saved without their confidence'
        )
    size = np.array([image.width, image.height])
    points = checked_points(np.reshape(values, (-1, 2)) * size, image.height, image.width, where)
    image.notes[CUT_OFF] += reaches_beyond(points, image.height, image.width)
    return names[int(label)], points


def _through_centres(row: list[str], points: np.ndarray, height: int, width: int) -> dict:
    """The RLE of the polygon of a line as Ultralytics draws it, see :func:`convert_yolo`."""
    cut = np.reshape(rounding_of(row[1:]), (-1, 2)) * (width, height)
    pixels = np.floor(points + np.minimum(cut, 0.5)).astype(int)
    return encode_mask(polygon_mask([(x, y) for x, y in pixels.tolist()], height, width))


def rounding_of(texts: Sequence[str]) -> list[float]:
    """By how much each number may have been rounded when it was written: half of its last digit.

    supervision writes five decimals, Ultralytics six significant digits, and zeros at the end may
    be missing: all numbers of a line are taken as written in one of the two ways, the coarser one.

    Args:
        texts: Finite numbers as text.
    """
    decimals = [Decimal(text) for text in texts]
    places = max(-int(number.as_tuple().exponent) for number in decimals)
    digits = max(len(number.as_tuple().digits) for number in decimals)
    return [
        0.5 * 10.0 ** max(-places, number.adjusted() + 1 - digits if number else -places)
        for number in decimals
    ]


def polygon_mask(points: Sequence[Pixel], height: int, width: int) -> np.ndarray:
    """The mask of a polygon through centres of pixels, its outline included.

    Args:
        points: Columns and rows.
        height: Of the mask.
        width: Likewise.

    Returns:
        (H, W) bool: without the lines there and back between two of its rings; inside, where a line
        to the border crosses an odd number of edges.
    """
    rings, lines = split_bridges(points)
    mask = np.zeros((height, width), np.uint8)
    if rings:
        cv2.fillPoly(mask, [np.array(ring, np.int32) for ring in rings], 1)
    for line in lines:
        cv2.line(mask, *line, 1)
    return mask.astype(bool)


def split_bridges(points: Sequence[Pixel]) -> tuple[list[list[Pixel]], list[tuple[Pixel, Pixel]]]:
    """Takes a polygon apart where it was put together.

    Tools write an object of several parts, or with a hole, as one polygon: from a ring to the next
    one along a line and back along the same line.

    Args:
        points: The polygon.

    Returns:
        Its rings, and the lines there and back that do not join two rings: thin ends of the object.
    """
    edges: Counter[tuple[Pixel, Pixel]] = Counter()
    for start, end in pairwise([*points, points[0]]):
        if edges[end, start]:
            edges[end, start] -= 1
        elif start != end:
            edges[start, end] += 1
    there = {(a, b) for a, b in pairwise([*points, points[0]]) if a != b and not edges[a, b]}
    lines = {(min(edge), max(edge)) for edge in there if not edges[edge[::-1]]}
    rings = _rings(edges)
    ring_of = {point: number for number, ring in enumerate(rings) for point in ring}
    kept: list[tuple[Pixel, Pixel]] = []
    for group in _connected(lines):
        joined = {ring_of[point] for line in group for point in line if point in ring_of}
        if len(joined) < 2:
            kept += group
    if not rings and not kept:  # a single pixel
        return [[points[0]]], []
    return rings, sorted(kept)


def _rings(edges: Counter[tuple[Pixel, Pixel]]) -> list[list[Pixel]]:
    """The closed ways that edges make; as many lead to each point as away from it."""
    following: defaultdict[Pixel, list[Pixel]] = defaultdict(list)
    for (start, end), times in edges.items():
        following[start] += [end] * times
    rings: list[list[Pixel]] = []
    for start in list(following):
        while following[start]:
            ring = [start]
            while (point := following[ring[-1]].pop()) != start:
                ring.append(point)
            rings.append(ring)
    return rings


def _connected(lines: set[tuple[Pixel, Pixel]]) -> list[list[tuple[Pixel, Pixel]]]:
    """Groups of lines that share points."""
    at: defaultdict[Pixel, list[tuple[Pixel, Pixel]]] = defaultdict(list)
    for line in lines:
        for point in line:
            at[point].append(line)
    groups, left = [], set(lines)
    while left:
        waiting, group = [left.pop()], []
        while waiting:
            line = waiting.pop()
            group.append(line)
            new = left.intersection(at[line[0]] + at[line[1]])
            left -= new
            waiting += new
        groups.append(group)
    return groups
