"""COCO labels drawn over their images, for pages."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_api

from mmcast.images import read_image
from mmcast.masks.drawing import class_colour, draw_instances
from mmcast.masks.rle import encode_segmentation

WIDTH = 480  # pixels of an image on a page
_TALLEST = 20 * WIDTH
_GREY = '#808080'


def class_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour (#rrggbb) for each class name."""
    return {
        name: '#{:02x}{:02x}{:02x}'.format(*class_colour(index)) for index, name in enumerate(names)
    }


def draw_labels(path: Path, labels: dict, image_id: int, colours: dict[str, str]) -> np.ndarray:
    """One image with filled and outlined instances.

    Args:
        path: the image file.
        labels: COCO labels; annotations with a score are drawn best last, thus on top.
        image_id: whose annotations to draw.
        colours: class name -> colour (#rrggbb); other classes are grey.

    Returns:
        (H, W, 3) uint8 RGB, :data:`WIDTH` wide, less where it would be very tall.
    """
    image = read_image(path, 'percentile')  # of more than 8 bits: as bright as people want it
    height, width = image.shape[:2]
    scale = min(WIDTH / width, _TALLEST / height)
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    names = {category['id']: category['name'] for category in labels['categories']}
    items = [
        item
        for item in labels['annotations']
        if item['image_id'] == image_id and not item.get('iscrowd')
    ]
    items.sort(key=lambda item: item.get('score', 1))
    masks = [
        mask_api.decode(encode_segmentation(item['segmentation'], height, width)) for item in items
    ]
    masks = [cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST).astype(bool) for mask in masks]
    chosen = [colours.get(names[item['category_id']], _GREY) for item in items]
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return draw_instances(resized, masks, [tuple(bytes.fromhex(colour[1:])) for colour in chosen])
