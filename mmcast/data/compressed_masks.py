"""Instance masks that stay run-length encoded until their pixels are needed."""

from collections.abc import Iterator, Sequence

import mmcv
import numpy as np
import torch
from mmdet.structures.bbox import BaseBoxes, get_box_type
from mmdet.structures.mask import BitmapMasks
from pycocotools import mask as mask_api

from mmcast.masks.resizing import nearest_centres
from mmcast.masks.rle import encode_crop

# Top row, left column and pixels (h, w), uint8, of the part of a mask that can hold ones.
Patch = tuple[int, int, np.ndarray]


class CompressedMasks(BitmapMasks):
    """``BitmapMasks`` of N masks (H, W) that are decoded late, and only where they are not empty.

    Flip, crop, pad and nearest-neighbour resize only choose rows and columns: pixel (y, x) of a
    mask is pixel (rows[y], columns[x]) of its source. Such a transform changes these two vectors
    and no mask. Pixels are read once, when asked for, inside the box of each mask, and that is also
    what goes from a loader's worker to the trainer. Other transforms work on bitmaps and give
    ``BitmapMasks``; those that ask for the array ``masks``, to read or to write into it, turn this
    object itself into ``BitmapMasks``.

    Args:
        rles: Compressed COCO RLEs, all of one source size.
        rows: (H,) row of the source, or -1 for padding.
        columns: (W,) the same for columns.
    """

    def __init__(self, rles: list[dict], rows: np.ndarray, columns: np.ndarray) -> None:
        self.rles, self.rows, self.columns = rles, rows, columns
        self.height, self.width = len(rows), len(columns)
        self._patches: list[Patch] | None = None

    @classmethod
    def of_patches(cls, patches: Sequence[Patch], height: int, width: int) -> 'CompressedMasks':
        """Masks (height, width) that are empty but for a patch each, which lies within them."""
        rles = [encode_crop(pixels, (top, left), (height, width)) for top, left, pixels in patches]
        masks = cls(rles, np.arange(height), np.arange(width))
        masks._patches = list(patches)
        return masks

    @property
    def patches(self) -> list[Patch]:
        """Where each mask may hold ones; the pixels are not to be written into."""
        if self._patches is None:
            self._patches = [self._decode(rle) for rle in self.rles]
        return self._patches

    def _decode(self, rle: dict) -> Patch:
        x, y, width, height = mask_api.toBbox(rle).astype(int).tolist()
        rows = np.flatnonzero((self.rows >= y) & (self.rows < y + height))
        columns = np.flatnonzero((self.columns >= x) & (self.columns < x + width))
        if not len(rows) or not len(columns):  # outside of the crop, or empty
            return 0, 0, np.zeros((0, 0), np.uint8)
        # Columns first: the decoder's memory is ordered by columns.
        pixels = mask_api.decode(rle).T[self.columns[columns]][:, self.rows[rows]].T
        return int(rows[0]), int(columns[0]), pixels

    def to_ndarray(self) -> np.ndarray:
        """All masks as a new array (N, H, W), uint8."""
        bitmaps = np.zeros((len(self), self.height, self.width), np.uint8)
        for bitmap, (top, left, pixels) in zip(bitmaps, self.patches):
            bitmap[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        return bitmaps

    @property
    def masks(self) -> np.ndarray:
        """The same, as the masks themselves from now on: what is written into it counts, as mmdet's
        ``RandomErasing`` expects.
        """
        self.masks = self.to_ndarray()
        return self.masks

    @masks.setter
    def masks(self, bitmaps: np.ndarray) -> None:
        self.__dict__ = dict(height=self.height, width=self.width, masks=bitmaps)
        self.__class__ = BitmapMasks

    def to_tensor(self, dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
        """Masks (N, H, W)."""
        return torch.from_numpy(self.to_ndarray()).to(device).to(dtype)

    @property
    def areas(self) -> np.ndarray:
        """(N,) pixels of each mask."""
        return np.array([pixels.sum() for _, _, pixels in self.patches], np.uint64)

    def get_bboxes(self, dst_type: str = 'hbb') -> BaseBoxes:
        """The box around the ones of each mask, (0, 0, 0, 0) of an empty one."""
        boxes = np.zeros((len(self), 4), np.float32)
        for box, (top, left, pixels) in zip(boxes, self.patches):
            rows, columns = (np.flatnonzero(pixels.any(axis)) for axis in (1, 0))
            if len(rows):
                box[:] = (
                    left + columns[0],
                    top + rows[0],
                    left + columns[-1] + 1,
                    top + rows[-1] + 1,
                )
        return get_box_type(dst_type)[1](boxes)

    def __len__(self) -> int:
        return len(self.rles)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.to_ndarray())

    def __repr__(self) -> str:
        return f'CompressedMasks(num_masks={len(self)}, height={self.height}, width={self.width})'

    def __getitem__(self, index: int | np.ndarray) -> 'CompressedMasks':
        chosen = np.atleast_1d(np.arange(len(self))[index]).tolist()
        masks = CompressedMasks([self.rles[i] for i in chosen], self.rows, self.columns)
        if self._patches is not None:
            masks._patches = [self._patches[i] for i in chosen]
        return masks

    def flip(self, flip_direction: str = 'horizontal') -> 'CompressedMasks':
        rows = self.rows if flip_direction == 'horizontal' else self.rows[::-1]
        columns = self.columns if flip_direction == 'vertical' else self.columns[::-1]
        return CompressedMasks(self.rles, rows, columns)

    def crop(self, bbox: np.ndarray) -> 'CompressedMasks':
        """Crop to the box (x1, y1, x2, y2), clipped to the masks and at least a pixel in size."""
        x1, x2 = np.clip(bbox[0::2], 0, self.width)
        y1, y2 = np.clip(bbox[1::2], 0, self.height)
        return CompressedMasks(
            self.rles, self.rows[y1 : max(y2, y1 + 1)], self.columns[x1 : max(x2, x1 + 1)]
        )

    def resize(self, out_shape: tuple[int, int], interpolation: str = 'nearest') -> BitmapMasks:
        """Resize to (height, width)."""
        if interpolation != 'nearest':
            return super().resize(out_shape, interpolation)
        height, width = out_shape
        return CompressedMasks(
            self.rles, nearest_centres(self.rows, height), nearest_centres(self.columns, width)
        )

    def rescale(
        self, scale: float | tuple[int, int], interpolation: str = 'nearest'
    ) -> BitmapMasks:
        """Resize by a factor, or as far as (long, short) sides allow."""
        width, height = mmcv.rescale_size((self.width, self.height), scale)
        return self.resize((height, width), interpolation)

    def pad(self, out_shape: tuple[int, int], pad_val: int = 0) -> BitmapMasks:
        """Pad at the bottom and on the right to (height, width)."""
        if pad_val != 0:
            return super().pad(out_shape, pad_val)
        masks = CompressedMasks(
            self.rles,
            *(
                np.pad(kept, (0, size - len(kept)), constant_values=-1)
                for kept, size in zip((self.rows, self.columns), out_shape)
            ),
        )
        masks._patches = self._patches  # they are where they were
        return masks

    @classmethod
    def cat(cls, masks: Sequence[BitmapMasks]) -> BitmapMasks:
        return BitmapMasks.cat(masks)
