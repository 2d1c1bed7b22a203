"""Loading of images and annotations, with errors that say which file is broken."""

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations

from mmcast.data.compressed_masks import CompressedMasks
from mmcast.errors import CASTError
from mmcast.masks.confidence import decode_map
from mmcast.masks.rle import encode_segmentation
from mmcast.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` that names the file it cannot read.

    Raises:
        CASTError: the image is missing, cut short or of no known format.
    """

    def transform(self, results: dict) -> dict | None:
        """Adds ``img`` (H, W, 3), BGR, to ``results``; see mmcv."""
        path = results['img_path']
        try:
            return super().transform(results)
        except Exception as error:  # OpenCV, the file backend and mmcv each have their own
            raise CASTError(
                f'image {path} cannot be read ({str(error) or type(error).__name__}); replace it, '
                'or take it out of the label file'
            ) from error


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
