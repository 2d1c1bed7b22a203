"""Labelme's JSON files, one for each image, to COCO JSON."""

import base64
import io
import math
import os
from collections.abc import Hashable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mmcast.coco.converters.exports import (
    CUT_OFF,
    OUT_FILE,
    RECTANGLES,
    ImageLabels,
    Written,
    labeled_image,
    names_in,
    raise_faults,
    read_all,
    read_json,
    write_exports,
)
from mmcast.coco.converters.shapes import checked_points, reaches_beyond
from mmcast.errors import CASTError
from mmcast.images import image_files
from mmcast.masks.rle import encode_mask

#: A flag of an image that people set when they have looked at it.
REVIEWED = 'reviewed'
# Points that a shape has.
_POINTS = dict(rectangle=2, circle=2, oriented_rectangle=4, mask=2)
_OTHER_JSON = 'JSON files that are not of Labelme left out'


def convert_labelme(
    root: str | os.PathLike,
    out_file: str | os.PathLike | None = None,
    rectangles_are_masks: bool = False,
    num_workers: int = 0,
    force: bool = False,
    progress: bool = True,
) -> dict[Path, Written]:
    """Convert every Labelme JSON of a folder, at any depth, to one COCO file.

    Masks are equal to those of Labelme's ``shape_to_mask`` and ``shapes_to_label`` (5.11.4, 6.3.1),
    pixel by pixel: polygons, rectangles, circles, oriented rectangles, and masks of its AI tools.
    Shapes of one label and ``group_id`` in an image are one object, as in Labelme's own
    conversions. Points and lines have no area: they are left out and counted. An image without
    shapes is kept, one without a JSON is not labeled. Flags and ``imageData`` are not read.

    Args:
        root: Folder of the JSON files and their images.
        out_file: Where to write; default ``annotations/instances.json`` in ``root``.
        rectangles_are_masks: Take a set in which every object is a rectangle.
        num_workers: Processes that read the files; 0 reads them here.
        force: Replace a file with other content.
        progress: Show a progress bar.

    Returns:
        As :func:`write_exports`. Categories are the labels, sorted.

    Raises:
        CASTError: a file, image or shape cannot be used, with all such faults, or see
            :func:`write_exports`.
    """
    root = Path(root)
    out_file = Path(out_file) if out_file else root / OUT_FILE
    files = labelme_files(root, out_file)
    description = f'Labelme, {root}'
    read = partial(read_labelme, root)
    images = read_all(read, files, description, num_workers, progress, left_out=_OTHER_JSON)
    return write_exports(
        {out_file: images}, names_in(images), description, force, rectangles_are_masks
    )


def labelme_files(root: Path, but: Path | None = None) -> list[Path]:
    """The JSON files of a folder, at any depth, but for one; raises CASTError if there are none."""
    files = [path for path in image_files(root, ('.json',)) if but is None or not _same(path, but)]
    if not files:
        raise CASTError(f'{root} has no JSON file: give the folder that Labelme saved to')
    return files


def _same(path: Path, other: Path) -> bool:
    return path.absolute() == other.absolute()


def read_labelme(root: Path, path: Path) -> ImageLabels | None:
    """The labels of one JSON file; None if it is of something else.

    Raises:
        CASTError: it cannot be used, with all faults of its shapes.
    """
    content = read_json(path, 'Labelme')
    if not isinstance(content, dict) or not isinstance(content.get('shapes'), list):
        return None
    size = content.get('imageHeight'), content.get('imageWidth')
    image = labeled_image(_image_path(content, path), root, path, None if None in size else size)
    parts, faults = [], []
    for number, shape in enumerate(content['shapes'], start=1):
        try:
            part = _part_of(shape, image, f'{path}, shape {number}')
        except CASTError as error:
            faults.append(str(error))
            continue
        if part:
            parts.append(part)
    raise_faults(faults)
    image.add_parts(parts)
    return image


def _image_path(content: dict, path: Path) -> Path:
    """As Labelme finds it, relative to the JSON; or, where files were moved, beside the JSON."""
    name = content.get('imagePath')
    if not isinstance(name, str) or not name:
        raise CASTError(f'{path} has no imagePath: save it in Labelme again')
    name = name.replace('\\', '/')  # as on Windows
    given, beside = path.parent / name, path.parent / name.rpartition('/')[2]
    found = beside if os.path.isfile(beside) and not os.path.isfile(given) else given
    return Path(os.path.normpath(found))


def _part_of(shape: Any, image: ImageLabels, where: str) -> tuple[str, Hashable, dict] | None:
    """Label, group and RLE of a shape; None, and a note, for one without an area."""
    label, group = (
        shape.get(key) if isinstance(shape, dict) else None for key in ('label', 'group_id')
    )
    if not isinstance(label, str) or not label or not isinstance(group, Hashable):
        raise CASTError(f'{where} has no label: label it in Labelme again')
    kind = shape.get('shape_type') or 'polygon'
    if kind not in ('polygon', *_POINTS):
        image.notes[f'shapes of the type {kind} left out'] += 1
        return None
    points = checked_points(shape.get('points'), image.height, image.width, where)
    if kind == 'polygon' and len(points) < 3:
        image.notes['polygons of fewer than three points left out'] += 1
        return None
    if len(points) != _POINTS.get(kind, len(points)):
        raise CASTError(f'{where}: a {kind} has {_POINTS[kind]} points, this one has {len(points)}')
    if kind == 'mask':
        mask = _pasted(shape, points, image, where)
    else:
        mask = shape_mask(kind, points, image.height, image.width)
    image.notes[CUT_OFF] += kind != 'circle' and reaches_beyond(points, image.height, image.width)
    image.notes[RECTANGLES] += kind == 'rectangle'
    return label, group, encode_mask(mask)


def shape_mask(kind: str, points: np.ndarray, height: int, width: int) -> np.ndarray:
    """What Labelme's ``shape_to_mask`` draws, with Pillow as there: outlines belong to the shape.

    Args:
        kind: Labelme's ``shape_type``.
        points: (N, 2), x and y.
        height: Of the mask.
        width: Likewise.

    Returns:
        (H, W) bool.
    """
    canvas = Image.new('L', (width, height))
    draw = ImageDraw.Draw(canvas)
    pairs = [(x, y) for x, y in points.tolist()]
    if kind == 'circle':
        (x, y), rim = pairs
        radius = math.dist((x, y), rim)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)
    elif kind == 'rectangle':
        draw.rectangle((*points.min(0).tolist(), *points.max(0).tolist()), outline=1, fill=1)
    else:
        draw.polygon(pairs, outline=1, fill=1)
    return np.asarray(canvas).astype(bool)


def _pasted(shape: dict, points: np.ndarray, image: ImageLabels, where: str) -> np.ndarray:
    """The mask of the image from a PNG of the box between two points, both within."""
    (left, top), (right, bottom) = points.astype(int)
    size = int(right - left + 1), int(bottom - top + 1)
    try:
        with Image.open(
            io.BytesIO(base64.b64decode(shape.get('mask') or '', validate=True))
        ) as png:
            found = png.size
            pixels = np.asarray(png) if found == size else None
    except (TypeError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise CASTError(f'{where}: its mask is no readable PNG: label it again') from error
    if pixels is None or pixels.ndim != 2:
        raise CASTError(
            f'{where}: its mask is not a grey PNG of {size[0]}x{size[1]} pixels, as its box is: '
            'label it again'
        )
    mask = np.zeros((image.height, image.width), bool)
    rows, columns = np.nonzero(pixels)
    rows, columns = rows + top, columns + left
    inside = (rows >= 0) & (columns >= 0) & (rows < image.height) & (columns < image.width)
    mask[rows[inside], columns[inside]] = True
    return mask
