"""The strong view: a photometric change of the same crop, made on the model's device for a whole
batch.
"""

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from mmcast.registry import MODELS


@MODELS.register_module()
class PhotometricStrongView(nn.Module):
    """Colour jitter, grayscale and blur of normalised images; geometry stays, so both views share
    pixels.

    Defaults are the authors' setting. Every image gets random parameters of its own.

    Args:
        brightness: Range of ``torchvision.transforms.v2.ColorJitter``.
        contrast: The same.
        saturation: The same.
        hue: The same.
        grayscale: Probability of a gray image.
        blur_kernel: Side of the Gaussian kernel in pixels.
        blur_sigma: Range of its standard deviation in pixels.
    """

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        grayscale: float = 0.2,
        blur_kernel: int = 5,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
    ) -> None:
        super().__init__()
        self.transform = v2.Compose(
            [
                v2.ColorJitter(brightness, contrast, saturation, hue),
                v2.RandomGrayscale(grayscale),
                v2.GaussianBlur(blur_kernel, blur_sigma),
            ]
        )

    @torch.no_grad()
    def forward(self, inputs: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Strong views of normalised images.

        Args:
            inputs: (B, 3, H, W), normalised as ``(pixel - mean) / std`` with pixels in [0, 255].
            mean: (3, 1, 1), the data preprocessor's.
            std: (3, 1, 1), likewise.

        Returns:
            (B, 3, H, W), normalised alike.
        """
        pixels = ((inputs.float() * std + mean) / 255).clamp(0, 1)
        strong = torch.stack([self.transform(image) for image in pixels])
        return ((strong * 255 - mean) / std).to(inputs.dtype)
