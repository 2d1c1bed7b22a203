"""CVAT's XML, "CVAT for images 1.1", to COCO JSON."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from mmcast.coco.converters.exports import (
    CUT_OFF,
    OUT_FILE,
    RECTANGLES,
    ImageFinder,
    ImageLabels,
    Written,
    labeled_image,
    names_in,
    raise_faults,
    read_all,
    visible,
    write_exports,
)
from mmcast.coco.converters.shapes import (
    checked_points,
    ellipse_outline,
    numbers,
    polygon_rle,
    reaches_beyond,
    rotated_rectangle,
)
from mmcast.errors import CASTError
from mmcast.masks.rle import encode_mask

# Elements of an image that are objects or might be taken for some.
_SHAPES = ('polygon', 'mask', 'box', 'ellipse', 'polyline', 'points', 'cuboid', 'skeleton', 'tag')
_AREAS = ('polygon', 'mask', 'box', 'ellipse')

Attributes = Mapping[str, str]


@dataclass
class CvatFile:
    """What an XML file says.

    Args:
        names: Labels of the task or project, in its order.
        images: Attributes of each image, and its shapes: element name and attributes.
    """

    names: list[str] = field(default_factory=list)
    images: list[tuple[Attributes, list[tuple[str, Attributes]]]] = field(default_factory=list)


def convert_cvat(
    source: str | os.PathLike,
    out_file: str | os.PathLike | None = None,
    images: str | os.PathLike | None = None,
    rectangles_are_masks: bool = False,
    num_workers: int = 0,
    force: bool = False,
    progress: bool = True,
) -> dict[Path, Written]:
    """Convert the XML of a task, job or project to one COCO file.

    Masks are taken as they are; polygons are drawn as COCO's API does, as in CVAT's own exports.
    Shapes of one label and ``group_id`` in an image are one object, as in CVAT's COCO export.
    Rotated boxes and ellipses are read; polylines, points, cuboids, skeletons and tags are left out
    and counted. Objects may overlap, whatever their ``z_order``.

    Args:
        source: ``annotations.xml``, or a folder with one XML file.
        out_file: Where to write; default ``annotations/instances.json`` beside the source.
        images: Folder of the images, which file names are then relative to; default the source's.
        rectangles_are_masks: Take a set in which every object is a rectangle.
        num_workers: Processes that draw; 0 draws here.
        force: Replace a file with other content.
        progress: Show a progress bar.

    Returns:
        As :func:`write_exports`. Categories are the labels in CVAT's order.

    Raises:
        CASTError: the file is something else, an image is missing or of another size, or a shape
            cannot be used, with all such faults; or see :func:`write_exports`.
    """
    path = _xml_file(Path(source))
    folder = Path(images) if images else path.parent
    out_file = Path(out_file) if out_file else path.parent / OUT_FILE
    content = read_cvat(path)
    labels = read_cvat_labels(content, path, folder, num_workers, progress)
    names = list(dict.fromkeys([*content.names, *names_in(labels)]))
    return write_exports({out_file: labels}, names, f'CVAT, {path}', force, rectangles_are_masks)


def read_cvat_labels(
    content: CvatFile, path: Path, folder: Path, num_workers: int = 0, progress: bool = True
) -> list[ImageLabels]:
    """The labels of all images of a file, in its order.

    Args:
        content: What the file says.
        path: Of the file, for messages.
        folder: Of the images.
        num_workers: Processes that draw; 0 draws here.
        progress: Show a progress bar.

    Raises:
        CASTError: images are missing or of another size, or shapes cannot be used.
    """
    read = partial(_read_image, ImageFinder(folder), path)
    return read_all(read, content.images, f'CVAT, {path}', num_workers, progress)


def _xml_file(source: Path) -> Path:
    if not source.is_dir():
        return source
    found = visible(source.glob('*.xml'))
    if len(found) != 1:
        raise CASTError(
            f'{source} has {len(found)} XML files: give annotations.xml of an export as "CVAT for '
            'images 1.1"'
        )
    return found[0]


def read_cvat(path: Path) -> CvatFile:
    """Reads an XML file.

    Entities are not expanded: a file that declares a document type is refused before its content.

    Raises:
        CASTError: it is no XML, or not that of images.
    """
    content = CvatFile()
    parser = expat.ParserCreate()
    open_elements: list[str] = []
    text: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == 'track' or (not open_elements and name != 'annotations'):
            raise CASTError(
                f'{path} is not an export as "CVAT for images 1.1" (found <{name}>): export the '
                'task again in that format'
            )
        if name == 'image':
            content.images.append((attributes, []))
        elif name in _SHAPES and open_elements[-1] == 'image':
            content.images[-1][1].append((name, attributes))
        open_elements.append(name)
        text.clear()

    def end(name: str) -> None:
        open_elements.pop()
        if name == 'name' and open_elements[-2:] == ['labels', 'label']:
            content.names.append(''.join(text))

    def refuse(*_: Any) -> None:
        raise CASTError(f'{path} declares a document type, which no export of CVAT does')

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text.append, refuse
    try:
        with open(path, 'rb') as file:
            parser.ParseFile(file)
    except OSError as error:
        raise CASTError(f'{path} cannot be read ({error.strerror}): check the path') from error
    except (expat.ExpatError, LookupError) as error:  # LookupError: the encoding that it names
        raise CASTError(f'{path} is not valid XML ({error}): export it again') from error
    return content


def _read_image(
    finder: ImageFinder, source: Path, item: tuple[Attributes, list[tuple[str, Attributes]]]
) -> ImageLabels:
    attributes, shapes = item
    name, subset = attributes.get('name', ''), attributes.get('subset', '')
    height, width = map(
        int,
        numbers([attributes.get(key) for key in ('height', 'width')], f'{source}, image {name}'),
    )
    names = [f'images/{subset}/{name}', f'images/{name}', name]
    path = finder.find(names, source)
    image = labeled_image(path, finder.folder, source, (height, width))
    parts, faults = [], []
    for number, (kind, shape) in enumerate(shapes, start=1):
        if kind not in _AREAS:
            image.notes[f'shapes of the type {kind} left out'] += 1
            continue
        where = f'{source}, image {name}, shape {number} ({kind})'
        try:
            if not shape.get('label'):
                raise CASTError(f'{where} has no label: export it again')
            rle = (
                _pasted(shape, image, where)
                if kind == 'mask'
                else _drawn(kind, shape, image, where)
            )
        except CASTError as error:
            faults.append(str(error))
            continue
        group = shape.get('group_id', '0')
        parts.append((shape['label'], None if group == '0' else group, rle))
    raise_faults(faults)
    image.add_parts(parts)
    return image


def _drawn(kind: str, shape: Attributes, image: ImageLabels, where: str) -> dict:
    """The RLE of a polygon, box or ellipse."""

    def value(*keys: str) -> list[float]:
        return numbers([shape.get(key) for key in keys], where)

    (degrees,) = numbers([shape.get('rotation', 0)], where)
    if kind == 'box':
        left, top, right, bottom = value('xtl', 'ytl', 'xbr', 'ybr')
        centre = (left + right) / 2, (top + bottom) / 2
        points = rotated_rectangle((left, top), right - left, bottom - top, degrees, centre)
        image.notes[RECTANGLES] += 1
    elif kind == 'ellipse':
        x, y, *radii = value('cx', 'cy', 'rx', 'ry')
        points = ellipse_outline((x, y), (radii[0], radii[1]), degrees)
    else:
        pairs = [pair.split(',') for pair in shape.get('points', '').split(';')]
        points = np.array([numbers(pair, where) for pair in pairs if len(pair) == 2])
        if len(points) < max(3, len(pairs)):
            raise CASTError(f'{where} has no list of three or more points: label it again')
    points = checked_points(points, image.height, image.width, where)
    image.notes[CUT_OFF] += reaches_beyond(points, image.height, image.width)
    return polygon_rle(points, image.height, image.width)


def _pasted(shape: Attributes, image: ImageLabels, where: str) -> dict:
    """The RLE of a ``mask``: runs outside and inside by turns, along the rows of a box."""
    keys = ('left', 'top', 'width', 'height')
    left, top, width, height = map(int, numbers([shape.get(key) for key in keys], where))
    runs = np.array(numbers(shape.get('rle', '').split(','), where))
    beyond = min(left, top) < 0 or left + width > image.width or top + height > image.height
    whole = (runs >= 0).all() and not (runs % 1).any() and runs.sum() == width * height
    if beyond or min(width, height) < 1 or not whole:
        raise CASTError(
            f'{where}: its runs are not those of a box of {width:.6g}x{height:.6g} pixels at '
            f'{left:.6g}, {top:.6g} within the image: export it again'
        )
    mask = np.zeros((image.height, image.width), bool)
    inside = np.arange(len(runs)) % 2 == 1
    mask[top : top + height, left : left + width] = np.repeat(inside, runs.astype(int)).reshape(
        height, width
    )
    return encode_mask(mask)
