"""The files that annotation tools import: proposals as masks, and the classes.

CVAT, Label Studio and COCO get run lengths, which hold every mask exactly. Labelme gets polygons,
which it can edit, where these are drawn as the same pixels, else masks.
"""

import base64
import io
import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as mask_api

from mmcast.coco.converters.labelme import REVIEWED, shape_mask
from mmcast.masks.drawing import class_colour
from mmcast.review.task import Task, TaskImage

_INSIDE = 1e-3  # pixels
_COUNT_BITS = (3, 4, 8, 16)  # of Label Studio's run lengths


def task_files(task: Task) -> dict[str, bytes]:
    """The content of the files to import, by their path below the task's folder."""
    return _WRITERS[task.tool](task)


def _decoded(rle: dict) -> np.ndarray:
    return mask_api.decode(rle).astype(bool)


def _colour(index: int) -> str:
    return '#{:02x}{:02x}{:02x}'.format(*class_colour(index))


# ---- CVAT


def cvat_files(task: Task) -> dict[str, bytes]:
    """CVAT for images 1.1: annotations to upload into a new task, and its labels in the form of the
    label constructor's tab Raw.
    """
    root = ElementTree.Element('annotations')
    ElementTree.SubElement(root, 'version').text = '1.1'
    meta = ElementTree.SubElement(ElementTree.SubElement(root, 'meta'), 'task')
    ElementTree.SubElement(meta, 'size').text = str(len(task.images))
    labels = ElementTree.SubElement(meta, 'labels')
    for index, name in enumerate(task.classes):
        label = ElementTree.SubElement(labels, 'label')
        for key, value in dict(name=name, color=_colour(index), type='any').items():
            ElementTree.SubElement(label, key).text = value
        ElementTree.SubElement(label, 'attributes')
    for number, image in enumerate(task.images):
        element = ElementTree.SubElement(
            root, 'image', id=str(number), name=image.name, width=str(image.width),
            height=str(image.height),
        )  # fmt: skip
        for proposal in image.proposals:
            attributes = dict(label=proposal.label, source='auto', occluded='0', z_order='0')
            attributes |= cvat_mask(_decoded(proposal.segmentation))
            ElementTree.SubElement(element, 'mask', attributes)
    ElementTree.indent(root)
    raw = [
        dict(name=name, color=_colour(index), type='any', attributes=[])
        for index, name in enumerate(task.classes)
    ]
    xml = ElementTree.tostring(root, encoding='utf-8', xml_declaration=True)
    return {'annotations.xml': xml, 'labels.json': json.dumps(raw, indent=1).encode()}


def cvat_mask(mask: np.ndarray) -> dict[str, str]:
    """A mask's box and its runs along the rows of the box, the first one outside of the mask."""
    (top, bottom), (left, right) = (
        np.flatnonzero(mask.any(axis))[[0, -1]].tolist() for axis in (1, 0)
    )
    inside = mask[top : bottom + 1, left : right + 1]
    edges = np.flatnonzero(np.diff(inside.ravel(), prepend=False))
    runs = np.diff(edges, prepend=0, append=inside.size)
    return dict(
        rle=', '.join(map(str, runs.tolist())), left=str(left), top=str(top),
        width=str(inside.shape[1]), height=str(inside.shape[0]),
    )  # fmt: skip


# ---- Label Studio


def label_studio_files(task: Task) -> dict[str, bytes]:
    """Tasks with predictions, and the labeling config."""
    view = ElementTree.Element('View')
    ElementTree.SubElement(view, 'Image', name='image', value='$image', zoom='true')
    labels = ElementTree.SubElement(view, 'BrushLabels', name='label', toName='image')
    for index, name in enumerate(task.classes):
        ElementTree.SubElement(labels, 'Label', value=name, background=_colour(index))
    ElementTree.indent(view)
    tasks = [_label_studio_task(task, image) for image in task.images]
    return {
        'tasks.json': json.dumps(tasks).encode(),
        'labeling_config.xml': ElementTree.tostring(view, encoding='utf-8'),
    }


def _label_studio_task(task: Task, image: TaskImage) -> dict:
    results = [
        dict(
            id=f'proposal-{proposal.id}',
            type='brushlabels',
            from_name='label',
            to_name='image',
            original_width=image.width,
            original_height=image.height,
            image_rotation=0,
            score=proposal.score,
            value=dict(
                format='rle',
                rle=brush_rle(_decoded(proposal.segmentation)),
                brushlabels=[proposal.label],
            ),
        )
        for proposal in image.proposals
    ]
    scores = [proposal.score for proposal in image.proposals]
    prediction = dict(
        model_version=f'mmcast {task.store["sha256"][:8]}',
        score=sum(scores) / len(scores) if scores else 0.0,
        result=results,
    )
    address = task.settings['image_url'] + quote(image.name)
    return dict(data=dict(image=address), predictions=[prediction])


def brush_rle(mask: np.ndarray) -> list[int]:
    """A mask as Label Studio's brush stores it: four equal channels, packed as
    :func:`mmcast.coco.converters.label_studio.brush_mask` unpacks them.

    Args:
        mask: (H, W) bool.
    """
    flat = mask.ravel()
    starts = np.append(0, np.flatnonzero(np.diff(flat)) + 1)
    lengths = 4 * np.diff(starts, append=flat.size)
    bits = [f'{4 * flat.size:032b}', f'{7:05b}', *(f'{width - 1:04b}' for width in _COUNT_BITS)]
    most = 2 ** _COUNT_BITS[-1]
    for inside, length in zip(flat[starts].tolist(), lengths.tolist()):
        value = '11111111' if inside else '00000000'
        whole, rest = divmod(length, most)
        bits += [f'111{most - 1:016b}{value}'] * whole
        if rest:
            kind = next(k for k, width in enumerate(_COUNT_BITS) if rest <= 2**width)
            bits.append(f'1{kind:02b}{rest - 1:0{_COUNT_BITS[kind]}b}{value}')
    text = ''.join(bits)
    text += '0' * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, 'big'))


# ---- COCO, FiftyOne


def coco_files(task: Task) -> dict[str, bytes]:
    """COCO JSON with RLE and scores; file names relative to the folder of images.

    FiftyOne (1.22) keeps boxes as fractions and rounds them down when it writes masks, and 61 / 224
    of 224 is less than 61: for it boxes begin a thousandth of a pixel further inside.
    """
    inside = [_INSIDE, _INSIDE, 0, 0] if task.tool == 'fiftyone' else [0, 0, 0, 0]
    ids = {name: number for number, name in enumerate(task.classes, start=1)}
    annotations = [
        dict(
            image_id=number,
            category_id=ids[proposal.label],
            segmentation=proposal.segmentation,
            bbox=(mask_api.toBbox(proposal.segmentation) + inside).tolist(),
            area=int(mask_api.area(proposal.segmentation)),
            iscrowd=0,
            score=proposal.score,
        )
        for number, image in enumerate(task.images, start=1)
        for proposal in image.proposals
    ]
    content = dict(
        info=dict(description='pseudo-labels to be reviewed'),
        categories=[
            dict(id=number, name=name, supercategory='none') for name, number in ids.items()
        ],
        images=[
            dict(id=number, file_name=image.name, height=image.height, width=image.width)
            for number, image in enumerate(task.images, start=1)
        ],
        annotations=[dict(ann, id=number) for number, ann in enumerate(annotations, start=1)],
    )
    name = 'labels.json' if task.tool == 'fiftyone' else 'annotations.json'
    return {name: json.dumps(content).encode()}


# ---- Labelme


def labelme_files(task: Task) -> dict[str, bytes]:
    """A JSON beside every image, with an unset flag ``reviewed``, and the list of classes."""
    files = {
        f'{task.image_folder}/{PurePosixPath(image.name).stem}.json': json.dumps(
            dict(
                version='5.0.0',
                flags={REVIEWED: False},
                shapes=_labelme_shapes(image),
                imagePath=image.name,
                imageData=None,
                imageHeight=image.height,
                imageWidth=image.width,
            ),
            indent=1,
        ).encode()
        for image in task.images
    }
    return files | {'labels.txt': ''.join(f'{name}\n' for name in task.classes).encode()}


def _labelme_shapes(image: TaskImage) -> list[dict]:
    shapes = []
    for group, proposal in enumerate(image.proposals, start=1):
        mask = _decoded(proposal.segmentation)
        outlines = _outlines(mask)
        for points in outlines or [[]]:
            shape: dict[str, Any] = dict(
                label=proposal.label, group_id=group if len(outlines) > 1 else None
            )
            shape |= dict(description='', flags={}, mask=None)
            if points:
                shape |= dict(shape_type='polygon', points=points)
            else:
                shape |= _labelme_mask(mask)
            shapes.append(shape)
    return shapes


def _outlines(mask: np.ndarray) -> list[list[list[float]]]:
    """Polygons through the centres of a mask's border pixels that Labelme draws as exactly these
    pixels; empty where there are none, as with holes.
    """
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    rings = [ring[:, 0].astype(float) for ring in found]
    drawn = np.zeros_like(mask)
    for ring in rings:
        if len(ring) < 3:
            return []
        drawn |= shape_mask('polygon', ring, *mask.shape)
    return [ring.tolist() for ring in rings] if np.array_equal(drawn, mask) else []


def _labelme_mask(mask: np.ndarray) -> dict:
    """A shape of the type mask: a PNG of its box, and the box's corners."""
    (top, bottom), (left, right) = (
        np.flatnonzero(mask.any(axis))[[0, -1]].tolist() for axis in (1, 0)
    )
    buffer = io.BytesIO()
    Image.fromarray(mask[top : bottom + 1, left : right + 1]).save(buffer, 'PNG')
    return dict(
        shape_type='mask',
        points=[[float(left), float(top)], [float(right), float(bottom)]],
        mask=base64.b64encode(buffer.getvalue()).decode(),
    )


_WRITERS: dict[str, Callable[[Task], dict[str, bytes]]] = dict(
    cvat=cvat_files,
    label_studio=label_studio_files,
    fiftyone=coco_files,
    labelme=labelme_files,
    coco=coco_files,
)
