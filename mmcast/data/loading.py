"""Loading of images and annotations, with errors that say which file is broken."""

from collections.abc import Mapping
from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations
from mmengine import fileio

from mmcast.data.compressed_masks import CompressedMasks
from mmcast.errors import CASTError
from mmcast.images import ValueRange, check_size, decode_image, parse_value_range
from mmcast.masks.confidence import decode_map
from mmcast.masks.rle import encode_segmentation
from mmcast.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """Loads an image as an upright picture in 8-bit colour, and compares its size with the label
    file's.

    mmcv's ``LoadImageFromFile`` cuts 16 bits to the high byte, leaves WebP as it is stored, and
    takes an image of any size.

    Args:
        value_range: what becomes black and white in images of more than 8 bits or of floating-point
            numbers: ``(low, high)``; ``'percentile'``, the 0.5th and 99.5th percentile of each
            image; or ``('percentile', low, high)``. None refuses such images. 8 bits stay as they
            are.
        to_float32: whether ``img`` is float32 instead of uint8.
        backend_args: of MMEngine's file backend.

    Raises:
        CASTError: the image is missing, cut short, of no known format or of another size than
            ``height`` and ``width`` of its label file, or has more than 8 bits without
            ``value_range``.
    """

    def __init__(
        self,
        value_range: ValueRange = None,
        to_float32: bool = False,
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(to_float32=to_float32, backend_args=backend_args)
        self.value_range = parse_value_range(value_range)

    def transform(self, results: dict) -> dict:
        """Adds ``img`` (H, W, 3), BGR, ``img_shape`` and ``ori_shape`` to ``results``."""
        path = results['img_path']
        try:
            data = fileio.get(path, backend_args=self.backend_args)
        except Exception as error:  # each file backend has its own
            raise CASTError(
                f'image {path} cannot be read ({str(error) or type(error).__name__}); replace it, '
                'or take it out of the label file'
            ) from error
        image = decode_image(data, path, self.value_range)
        size = image.shape[:2]
        stated = results.get('height') or 0, results.get('width') or 0
        if all(side > 0 for side in stated):
            check_size(path, size, stated)
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = size
        return results


def value_range_of(cfg: Mapping[str, Any]) -> list | None:
    """``value_range`` of the :class:`LoadImage` in a config's test pipeline."""
    for step in cfg['test_dataloader']['dataset']['pipeline']:
        if str(step['type']).rpartition('.')[2] == LoadImage.__name__:
            return parse_value_range(step.get('value_range'))
    return None


@TRANSFORMS.register_module()
class LoadCompressedAnnotations(LoadAnnotations):
    """mmdet's ``LoadAnnotations`` with masks (polygons or RLE) that stay compressed until they are
    cropped.

    What comes out of a pipeline is the same, pixel by pixel, but that masks are resized with
    half-pixel-centre sampling, see :func:`~mmcast.masks.resizing.nearest_centres`.

    Raises:
        CASTError: a mask is not of the size of its image.
    """

    def _load_masks(self, results: dict) -> None:
        height, width = results['ori_shape']
        rles = [encode_segmentation(mask, height, width) for mask in self._process_masks(results)]
        wrong = [rle['size'] for rle in rles if list(rle['size']) != [height, width]]
        if wrong:
            raise CASTError(
                f'{results["img_path"]} is {height} x {width} but has a mask of {wrong[0][0]} x '
                f'{wrong[0][1]} (height x width): take both from the same data set'
            )
        results['gt_masks'] = CompressedMasks(rles, np.arange(height), np.arange(width))


@TRANSFORMS.register_module()
class LoadConfidenceMap(BaseTransform):
    """Adds a pseudo-labeled image's ``confidence`` as ``gt_seg_map`` (H, W) of uint8, 0 to
    ``LEVELS``.

    Every transform that moves pixels moves a segmentation map with them; no class is meant by it.
    """

    def transform(self, results: dict) -> dict:
        """At the size of the image, before any transform changed it."""
        height, width = results['ori_shape']
        levels = decode_map(results['confidence'])
        results['gt_seg_map'] = mmcv.imresize(levels, (width, height), interpolation='nearest')
        return results
