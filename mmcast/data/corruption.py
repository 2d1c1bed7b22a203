"""Corrupted images for ``mmcast mmdet test_robustness``."""

import numpy as np
from mmcv.transforms import BaseTransform

from mmcast.errors import CASTError
from mmcast.registry import TRANSFORMS


@TRANSFORMS.register_module()
class Corrupt(BaseTransform):
    """Noise, blur, weather or compression, by the package ``imagecorruptions`` (Michaelis et al.,
    "Benchmarking Robustness in Object Detection").

    mmdet's tool ``test_robustness`` puts a transform of this name behind the one that loads the
    image, and onedl-mmdetection 3.4.5 has none. As upstream's mmdet does, it passes on the image in
    BGR.

    Args:
        corruption: its name, such as 'gaussian_noise'.
        severity: 1 to 5.

    Raises:
        CASTError: the package is not installed.
    """

    def __init__(self, corruption: str, severity: int = 1) -> None:
        try:
            from imagecorruptions import corrupt  # here, as it takes seconds
        except ImportError as error:
            raise CASTError(
                'corruptions need the package imagecorruptions: pip install imagecorruptions-imaug'
            ) from error
        self._corrupt = corrupt
        self.corruption = corruption
        self.severity = severity

    def transform(self, results: dict) -> dict:
        """Replaces ``img``, (H, W, 3) uint8 of at least 32 pixels a side."""
        results['img'] = self._corrupt(
            results['img'].astype(np.uint8),
            corruption_name=self.corruption,
            severity=self.severity,
        )
        return results
