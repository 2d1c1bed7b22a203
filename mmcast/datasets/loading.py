"""Loading of images with errors that say which file is broken."""
from mmcv.transforms import LoadImageFromFile

from mmcast.errors import CASTError
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
                f'image {path} cannot be read ({str(error) or type(error).__name__}); replace it, or take it '
                'out of the label file') from error
