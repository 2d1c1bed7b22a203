"""Label Studio's JSON, polygons and brush masks, to COCO JSON."""

import os
import re
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

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
    read_json,
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
from mmcast.images import IMAGE_SUFFIXES
from mmcast.masks.rle import encode_mask

# Results that say something about a task or an object, and are no shape.
_NO_SHAPE = {
    'choices', 'datetime', 'labels', 'number', 'pairwise', 'ranker', 'rating', 'relation',
    'taxonomy', 'textarea',
}  # fmt: skip
_AREAS = ('polygon', 'brush', 'rectangle', 'ellipse')
NO_ANNOTATION = 'tasks without an annotation left out'
UPLOAD = re.compile(r'[0-9a-f]{8}-')  # in front of the names of uploaded files


def convert_label_studio(
    source: str | os.PathLike,
    out_file: str | os.PathLike | None = None,
    images: str | os.PathLike | None = None,
    rectangles_are_masks: bool = False,
    num_workers: int = 0,
    force: bool = False,
    progress: bool = True,
) -> dict[Path, Written]:
    """Convert an export as "JSON" to one COCO file.

    Brush masks are taken as they are: pixels whose alpha is above 0. Polygons, rectangles and
    ellipses are drawn as COCO's API draws polygons. Keypoints and other shapes without an area are
    left out and counted, as are tasks that nobody annotated or that were skipped; an annotation
    without shapes is an image without objects. Predictions are not read.

    Args:
        source: The JSON file.
        out_file: Where to write; default ``annotations/instances.json`` beside the source.
        images: Folder of the images, at any depth, which file names are then relative to; default
            the source's. Uploaded files are found with and without the eight digits in front of
            their names.
        rectangles_are_masks: Take a set in which every object is a rectangle.
        num_workers: Processes that draw; 0 draws here.
        force: Replace a file with other content.
        progress: Show a progress bar.

    Returns:
        As :func:`write_exports`. Categories are the labels, sorted.

    Raises:
        CASTError: the file is something else, a task has several annotations, an image is missing
            or of another size, or a shape cannot be used, with all such faults; or see
            :func:`write_exports`.
    """
    path = Path(source)
    folder = Path(images) if images else path.parent
    out_file = Path(out_file) if out_file else path.parent / OUT_FILE
    tasks = read_tasks(path)
    description = f'Label Studio, {path}'
    labels = read_label_studio_labels(tasks, path, folder, num_workers, progress)
    return write_exports(
        {out_file: labels}, names_in(labels), description, force, rectangles_are_masks
    )


def read_tasks(path: Path) -> list[dict]:
    """The tasks of an export.

    Raises:
        CASTError: it is something else.
    """
    tasks = read_json(path, 'Label Studio')
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and isinstance(task.get('data'), dict) for task in tasks
    ):
        raise CASTError(f'{path} is not a list of tasks: export from Label Studio as "JSON"')
    if tasks and not any('annotations' in task for task in tasks):
        raise CASTError(f'{path} has no annotations in its tasks: export as "JSON", not "JSON-MIN"')
    return tasks


def read_label_studio_labels(
    tasks: list[dict], path: Path, folder: Path, num_workers: int = 0, progress: bool = True
) -> list[ImageLabels]:
    """The labels of the tasks that have an annotation, in their order.

    Args:
        tasks: Of the export.
        path: Of the export, for messages.
        folder: Of the images.
        num_workers: Processes that draw; 0 draws here.
        progress: Show a progress bar.

    Raises:
        CASTError: tasks have several annotations, images are missing or of another size, or shapes
            cannot be used.
    """
    read = partial(_read_task, ImageFinder(folder), path)
    return read_all(
        read, tasks, f'Label Studio, {path}', num_workers, progress, left_out=NO_ANNOTATION
    )


def _read_task(finder: ImageFinder, source: Path, task: dict) -> ImageLabels | None:
    where = f'{source}, task {task.get("id")}'
    results = _results(task, where)
    if results is None:
        return None
    path = finder.find(image_names(task, where), source)
    shapes = _shapes(results)
    image = labeled_image(path, finder.folder, source, _size_of(shapes, where))
    faults = []
    for result in shapes:
        try:
            _add_shape(result, image, f'{where}, {result["type"]} {result.get("id")}')
        except CASTError as error:
            faults.append(str(error))
    raise_faults(faults)
    return image


def _results(task: dict, where: str) -> list[dict] | None:
    """What the one annotation of a task says; None if there is no annotation."""
    annotations = [
        annotation
        for annotation in task.get('annotations') or []
        if isinstance(annotation, dict) and not annotation.get('was_cancelled')
    ]
    truth = [annotation for annotation in annotations if annotation.get('ground_truth')]
    chosen = truth if len(truth) == 1 else annotations
    if len(chosen) > 1:
        raise CASTError(
            f'{where} has {len(chosen)} annotations: mark one as ground truth in Label Studio, or '
            'delete the others'
        )
    if not chosen:
        return None
    results = chosen[0].get('result')
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise CASTError(f'{where}: its annotation has no list of results: export as "JSON"')
    return results


def image_names(task: dict, where: str) -> list[str]:
    """What the image of a task may be called."""
    texts = [text for text in task['data'].values() if isinstance(text, str)]
    # A path as /data/local-files/?d=folder/a.png is in the query.
    paths = [
        unquote(parse_qs(urlsplit(text).query).get('d', [urlsplit(text).path])[0]) for text in texts
    ]
    found = [path for path in paths if path.lower().endswith(IMAGE_SUFFIXES)]
    if len(found) != 1:
        raise CASTError(
            f'{where}: its data names {len(found)} images, not one: {sorted(task["data"])}'
        )
    names = [found[0].replace('\\', '/')]
    plain = names[0].rpartition('/')[2]
    return [*names, *([UPLOAD.sub('', plain, count=1)] if UPLOAD.match(plain) else [])]


def _shapes(results: list[dict]) -> list[dict]:
    """The results that have a place in the image; of a kind and its labels that are apart (the tag
    Labels beside Polygon), both in one.
    """
    apart = {
        str(result.get('id')): result['value']
        for result in results
        if result.get('type') == 'labels' and isinstance(result.get('value'), dict)
    }
    shapes = []
    for result in results:
        kind = str(result.get('type'))
        if kind not in _NO_SHAPE and isinstance(result.get('value'), dict):
            value = apart.get(str(result.get('id')), {}) | result['value']
            shapes.append(dict(result, type=kind.removesuffix('labels'), value=value))
    return shapes


def _size_of(shapes: list[dict], where: str) -> tuple[Any, Any] | None:
    """Height and width of the labeled image; shapes have percentages of them."""
    sizes = [(shape.get('original_height'), shape.get('original_width')) for shape in shapes]
    if any(shape.get('image_rotation') for shape in shapes):
        raise CASTError(f'{where}: its image was rotated in Label Studio: rotate the file instead')
    if any(size != sizes[0] for size in sizes):
        raise CASTError(f'{where}: its shapes are of images of several sizes: label it again')
    return sizes[0] if sizes and None not in sizes[0] else None


def _add_shape(shape: dict, image: ImageLabels, where: str) -> None:
    kind, value = shape['type'], shape['value']
    if kind not in _AREAS:
        image.notes[f'shapes of the type {kind} left out'] += 1
        return
    labels = value.get(f'{kind}labels') or value.get('labels')
    labels = [label for label in labels if label] if isinstance(labels, list) else []
    if len(labels) != 1 or not isinstance(labels[0], str):
        raise CASTError(f'{where} has {len(labels)} labels, not one: label it again')
    if kind == 'brush':
        rle = encode_mask(brush_mask(value.get('rle'), image.height, image.width, where))
    else:
        points = _outline(kind, value, image, where)
        if len(points) < 3:
            image.notes['polygons of fewer than three points left out'] += 1
            return
        image.notes[CUT_OFF] += reaches_beyond(points, image.height, image.width)
        image.notes[RECTANGLES] += kind == 'rectangle'
        rle = polygon_rle(points, image.height, image.width)
    image.add(labels[0], rle)


def _outline(kind: str, value: dict, image: ImageLabels, where: str) -> np.ndarray:
    """Checked points of a polygon, rectangle or ellipse in pixels, (N, 2)."""
    size = np.array([image.width, image.height]) / 100
    if kind == 'polygon':
        return checked_points(value.get('points'), 100, 100, where) * size
    keys = ('x', 'y', 'radiusX', 'radiusY') if kind == 'ellipse' else ('x', 'y', 'width', 'height')
    percent = np.array(numbers([value.get(key) for key in keys], where))
    x, y, width, height = (percent * np.tile(size, 2)).tolist()
    (degrees,) = numbers([value.get('rotation') or 0], where)
    if kind == 'ellipse':
        points = ellipse_outline((x, y), (width, height), degrees)
    else:
        points = rotated_rectangle((x, y), width, height, degrees, pivot=(x, y))
    return checked_points(points, image.height, image.width, where)


def brush_mask(rle: Any, height: int, width: int, where: str) -> np.ndarray:
    """The mask of a brush: a picture of four channels, packed as by thi.ng's ``rle-pack``.

    The first 32 bits are the number of values, 5 more the bits of one value less 1, 4 times 4 the
    lengths of four kinds of counts less 1. Then follow runs: a bit that says whether one value is
    repeated or values differ, 2 bits for the kind of count, the count less 1, one or all values.

    Args:
        rle: The bytes.
        height: Of the image.
        width: Likewise.
        where: For the message.

    Returns:
        (H, W) bool: alpha, the last channel, is above 0.

    Raises:
        CASTError: these are no bytes, or not those of an image of this size.
    """
    fault = CASTError(
        f'{where}: its RLE is not that of an image of {width}x{height}: label it again'
    )
    try:
        packed = np.array(rle, np.uint8, ndmin=1)
    except (TypeError, ValueError, OverflowError) as error:
        raise fault from error
    bits = ''.join(map(str, np.unpackbits(packed).tolist()))
    position = 0

    def read(number: int) -> int:
        nonlocal position
        position += number
        if position > len(bits):
            raise fault
        return int(bits[position - number : position], 2)

    total, word = read(32), read(5) + 1
    if packed.ndim != 1 or total != 4 * height * width or word != 8:
        raise fault
    counts = [read(4) + 1 for _ in range(4)]
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        repeated = read(1)
        number = read(counts[read(2)]) + 1
        if number > total - done:
            raise fault
        if repeated:
            values[done : done + number] = read(word)
        else:
            values[done : done + number] = [read(word) for _ in range(number)]
        done += number
    return values.reshape(height, width, 4)[..., 3] > 0
