"""Instances drawn over an image: filled, outlined and, if wanted, captioned."""

from collections.abc import Sequence

import cv2
import numpy as np

from mmcast.masks.cropped import CroppedMasks

_OPACITY = 0.45
#: Colours of classes, RGB, in the order of their names: those of matplotlib's tab20, the strong
#: ones first.
PALETTE = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (188, 189, 34), (23, 190, 207), (127, 127, 127),
    (174, 199, 232), (255, 187, 120), (152, 223, 138), (255, 152, 150), (197, 176, 213),
    (196, 156, 148), (247, 182, 210), (219, 219, 141), (158, 218, 229), (199, 199, 199),
)  # fmt: skip
Colour = tuple[int, int, int]


def class_colour(index: int) -> Colour:
    """The colour of a class by its ``index`` among the names; colours repeat after twenty."""
    return PALETTE[index % len(PALETTE)]


def draw_instances(
    image: np.ndarray,
    masks: Sequence[np.ndarray] | CroppedMasks,
    colours: Sequence[Colour],
    captions: Sequence[str] | None = None,
) -> np.ndarray:
    """A copy of an image with instances on it.

    Args:
        image: (H, W, 3) of uint8, RGB.
        masks: N masks (H, W) of bool, or cropped, in the order of drawing: the last lies on top.
        colours: N colours, RGB.
        captions: N texts, written above the instances; None for none.
    """
    if not isinstance(masks, CroppedMasks):
        masks = CroppedMasks.of(masks, image.shape[:2])
    drawing = image.copy()
    thickness = 1 + max(image.shape) // 1000
    corners = masks.corners.tolist()
    for crop, place, (top, left), colour in zip(
        masks.crops, masks.slices(), corners, colours, strict=True
    ):
        part = drawing[place]
        part[crop] = ((1 - _OPACITY) * part[crop] + _OPACITY * np.array(colour)).astype(np.uint8)
        outlines, _ = cv2.findContours(
            crop.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(left, top)
        )
        cv2.drawContours(drawing, outlines, -1, colour, thickness)
    if captions is not None:
        for crop, corner, caption in zip(masks.crops, corners, captions, strict=True):
            if crop.size:
                _write(drawing, corner, caption)
    return drawing


def _write(drawing: np.ndarray, corner: Sequence[int], caption: str) -> None:
    """A caption above a mask, whose top row and left column are given, readable on any ground, in
    place.
    """
    top, left = corner
    caption = caption.encode('ascii', 'replace').decode()  # all that the font has
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.35, max(drawing.shape) / 2000)
    (width, height), _ = cv2.getTextSize(caption, font, scale, 1)
    corner = max(0, min(left, drawing.shape[1] - width)), max(top - 3, height)
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(drawing, caption, corner, font, scale, colour, thickness, cv2.LINE_AA)
