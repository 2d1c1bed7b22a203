"""Masks of one image of which only the parts that hold pixels are in memory.

A thousand small objects on 4000 x 4000 pixels are 16 GB as an array, and some megabytes so.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CroppedMasks:
    """N masks of an image.

    Args:
        crops: N arrays (h, w) of bool, tight around the pixels of each mask; (0, 0) for an empty
            one.
        corners: (N, 2) of int, top row and left column of each; zeros for an empty one.
        size: Height and width of the image.
    """

    crops: list[np.ndarray]
    corners: np.ndarray
    size: tuple[int, int]

    @classmethod
    def of(cls, masks: Iterable[np.ndarray], size: Sequence[int]) -> 'CroppedMasks':
        """Of N ``masks`` (H, W) of bool and their ``size``; the parts are views, not copies."""
        return cls.of_parts(((mask, (0, 0)) for mask in masks), size)

    @classmethod
    def of_parts(
        cls, parts: Iterable[tuple[np.ndarray, Sequence[int]]], size: Sequence[int]
    ) -> 'CroppedMasks':
        """Of N arrays (h, w) of bool; pixels beyond the image are dropped.

        Args:
            parts: The arrays, each with its top row and left column.
            size: Height and width of the image.
        """
        height, width = size
        crops, corners = [], []
        for part, (top, left) in parts:
            rows, columns = tight_slices(part[: max(height - top, 0), : max(width - left, 0)])
            empty = rows.start == rows.stop
            crops.append(part[rows, columns])
            corners.append((0, 0) if empty else (top + rows.start, left + columns.start))
        return cls(crops, np.array(corners, int).reshape(-1, 2), (int(height), int(width)))

    @classmethod
    def in_boxes(cls, masks: np.ndarray, boxes: np.ndarray) -> 'CroppedMasks':
        """:meth:`of` with tight boxes that are known, as :meth:`boxes` has them.

        Args:
            masks: (N, H, W) of bool.
            boxes: (N, 4).
        """
        whole = boxes.astype(int)
        crops = [
            mask[top:bottom, left:right]
            for mask, (left, top, right, bottom) in zip(masks, whole.tolist())
        ]
        return cls(crops, whole[:, 1::-1], masks.shape[1:])

    @classmethod
    def joined(cls, parts: Sequence['CroppedMasks']) -> 'CroppedMasks':
        """Those of ``parts``, one or more lists of masks of one image, one after the other."""
        crops = [crop for part in parts for crop in part.crops]
        return cls(crops, np.concatenate([part.corners for part in parts]), parts[0].size)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, chosen: np.ndarray | list[int] | slice) -> 'CroppedMasks':
        """Some masks, by what an array is indexed with: indices, a mask of bool or a slice."""
        indices = np.arange(len(self))[chosen].tolist()
        return CroppedMasks([self.crops[i] for i in indices], self.corners[indices], self.size)

    def replaced(self, places: Sequence[int], others: 'CroppedMasks') -> 'CroppedMasks':
        """The masks, with M ``others`` of the same image at M ``places`` in place of them."""
        crops, corners = list(self.crops), self.corners.copy()
        for place, crop in zip(places, others.crops, strict=True):
            crops[place] = crop
        corners[list(places)] = others.corners
        return CroppedMasks(crops, corners, self.size)

    @property
    def shapes(self) -> np.ndarray:
        """(N, 2) of int: height and width of each part."""
        return np.array([crop.shape for crop in self.crops], int).reshape(-1, 2)

    def slices(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of the image that each part covers."""
        for (top, left), (height, width) in zip(self.corners.tolist(), self.shapes.tolist()):
            yield slice(top, top + height), slice(left, left + width)

    def any(self) -> np.ndarray:
        """(N,) of bool: which have a pixel."""
        return self.shapes.min(axis=1, initial=1) > 0

    def areas(self) -> list[int]:
        """Pixels of each."""
        return [int(np.count_nonzero(crop)) for crop in self.crops]

    def boxes(self) -> np.ndarray:
        """Tight boxes (N, 4) of float32: x1, y1, x2, y2, x2 and y2 exclusive; zeros for an empty
        mask.
        """
        first = self.corners[:, ::-1]
        return np.concatenate([first, first + self.shapes[:, ::-1]], axis=1).astype(np.float32)

    def copy_to(self, corner: Sequence[int], size: Sequence[int]) -> 'CroppedMasks':
        """Copies of the masks, on a larger image of ``size`` in which this one lies at ``corner``,
        top row and left column.
        """
        crops = [crop.copy() for crop in self.crops]
        corners = np.where(self.any()[:, None], self.corners + corner, 0)
        return CroppedMasks(crops, corners, (int(size[0]), int(size[1])))

    def cut_to(self, size: Sequence[int]) -> 'CroppedMasks':
        """The masks on the top left part of the image, of ``size`` (height, width)."""
        if tuple(size) == self.size:
            return self
        return self.of_parts(zip(self.crops, self.corners.tolist()), size)

    def to_array(self) -> np.ndarray:
        """(N, H, W) of bool; N H W bytes."""
        masks = np.zeros((len(self), *self.size), bool)
        for mask, place, crop in zip(masks, self.slices(), self.crops):
            mask[place] = crop
        return masks

    def resize(self, size: Sequence[int]) -> 'CroppedMasks':
        """The masks on an image of another ``size``, as OpenCV's linear interpolation of whole
        masks and a threshold of one half have them.
        """
        down, across = (
            LinearInterpolation(*sides, np.float64) for sides in zip(self.size, map(int, size))
        )
        resized = (
            resize_part(crop.astype(np.float32), place, down, across, 0.0)
            for crop, place in zip(self.crops, self.slices())
        )
        return self.of_parts(((part > 0.5, corner) for part, corner in resized), size)


def tight_slices(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of ``mask`` (H, W) of bool from the first with a pixel to the last; empty if
    there is none.
    """
    pixels = mask.view(np.uint8)  # whose "or" is faster than that of bool
    columns = np.flatnonzero(np.bitwise_or.reduce(pixels, axis=0))
    if not len(columns):
        return slice(0, 0), slice(0, 0)
    first, end = int(columns[0]), int(columns[-1]) + 1
    rows = np.flatnonzero(mask[:, first:end].any(axis=1))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(first, end)


class LinearInterpolation:
    """Linear half-pixel-centre interpolation of one dimension.

    Args:
        size_in: Pixels before.
        size_out: Pixels after.
        precision: In which places are computed: numpy's float64 as OpenCV, its float32 as torch.

    Attributes:
        first: (size_out,) the first of the two inputs that each output is between, ascending.
        weights: Two arrays (size_out,) of float32, of that input and of the next.
    """

    def __init__(self, size_in: int, size_out: int, precision: type[np.floating]) -> None:
        half = precision(0.5)
        scale = precision(size_in) / precision(size_out)
        places = (np.arange(size_out, dtype=precision) + half) * scale - half
        first = np.floor(places).astype(int)
        second_weight = (places - first.astype(precision)).astype(np.float32)
        second_weight[(first < 0) | (first >= size_in - 1)] = 0
        self.first = first.clip(0, size_in - 1)
        self.weights = 1 - second_weight, second_weight

    def between(self, inputs: slice) -> slice:
        """The outputs that any of some neighbouring ``inputs`` may contribute to."""
        first, end = np.searchsorted(self.first, [inputs.start - 1, inputs.stop]).tolist()
        return slice(first, end)


def resize_part(
    part: np.ndarray,
    place: tuple[slice, slice],
    down: LinearInterpolation,
    across: LinearInterpolation,
    outside: float,
) -> tuple[np.ndarray, tuple[int, int]]:
    """A part of an image, as resizing of the whole has it.

    Args:
        part: (h, w) of float32.
        place: Its rows and columns.
        down: How columns of the image are resized.
        across: How its rows are.
        outside: The value of all other pixels.

    Returns:
        What the part contributes to, and its top row and left column.
    """
    values = np.pad(part, 1, constant_values=outside)
    corner: list[int] = []
    for axis, (inputs, way) in reversed([*enumerate(zip(place, (down, across)))]):
        outputs = way.between(inputs)
        first = way.first[outputs] - (inputs.start - 1)
        one, other = (np.expand_dims(weights[outputs], 1 - axis) for weights in way.weights)
        values = values.take(first, axis) * one + values.take(first + 1, axis) * other
        corner.insert(0, outputs.start)
    return values, (corner[0], corner[1])
