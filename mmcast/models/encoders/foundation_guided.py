"""An encoder that learns, with what a frozen foundation model knows of the image added to its
maps.
"""

import math

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmcast.errors import CASTError
from mmcast.models.encoders.timm_encoder import TimmEncoder
from mmcast.registry import MODELS


@MODELS.register_module()
class FoundationGuidedEncoder(BaseModule):
    """Feature maps (B, C, h, w) of an encoder, each plus a projection of a frozen ViT's.

    Projections start at zero, so a network with weights for ``encoder`` alone starts as it was and
    learns how much of the other to use. With few labels that is how it comes to know more than
    these labels and its student tell: docs/results.md.

    The ViT gets the image at the size at which its patches lie on cells of ``stride`` pixels, and
    never learns.

    Args:
        encoder: ``TimmEncoder`` of a pyramid.
        foundation: ``TimmEncoder`` of a plain ViT, such as DINOv2's.
        stride: Pixels of the image that a patch of the ViT shows, a power of 2. Half of it costs
            four times as much and shows objects half as large.
        num_maps: So many of the ViT's maps are projected, its last.

    Attributes:
        channels, strides, mean, std, name: of ``encoder``; images are normalised as it wants.
        size_divisor: What the sides of images have to be multiples of.
        num_sources: Weights that :meth:`load_pretrained` wants.

    Raises:
        CASTError: ``foundation`` is no plain ViT of timm or has fewer maps, or ``stride`` is no
            power of 2.
    """

    num_sources = 2

    def __init__(
        self,
        encoder: dict,
        foundation: dict,
        stride: int = 16,
        num_maps: int = 2,
    ) -> None:
        super().__init__()
        self.encoder, self.foundation = MODELS.build(encoder), MODELS.build(foundation)
        if not all(isinstance(each, TimmEncoder) for each in (self.encoder, self.foundation)):
            raise CASTError('FoundationGuidedEncoder: encoder and foundation are of TimmEncoder')
        if stride < 1 or stride & (stride - 1):
            raise CASTError(f'FoundationGuidedEncoder: stride {stride} is no power of 2')
        self.foundation.requires_grad_(False)
        self.stride, self.num_maps = stride, num_maps
        known = self.foundation.channels[-num_maps:]
        if len(set(self.foundation.strides)) > 1 or not 0 < num_maps <= len(known):
            raise CASTError(
                f"FoundationGuidedEncoder: {num_maps} maps of timm's {self.foundation.name}, whose "
                f'maps have strides {self.foundation.strides}: give a plain ViT, and num_maps from '
                f'1 to {len(self.foundation.strides)}'
            )
        self.name, self.mean, self.std = self.encoder.name, self.encoder.mean, self.encoder.std
        self.channels, self.strides = self.encoder.channels, self.encoder.strides
        self.size_divisor = math.lcm(self.encoder.size_divisor, stride)
        self.norm = nn.GroupNorm(1, sum(known))
        self.projections = nn.ModuleList(nn.Conv2d(sum(known), each, 1) for each in self.channels)
        own, other = (
            [torch.tensor(values).view(3, 1, 1) for values in (each.mean, each.std)]
            for each in (self.encoder, self.foundation)
        )
        self.register_buffer('_scale', own[1] / other[1], persistent=False)
        self.register_buffer('_shift', (own[0] - other[0]) / other[1], persistent=False)

    def forward(self, images: Tensor, num_maps: int | None = None) -> tuple[Tensor, ...]:
        """Maps (B, C_i, H / s_i, W / s_i) of images (B, 3, H, W), normalised for ``encoder``.

        Args:
            images: Sides are multiples of ``size_divisor``.
            num_maps: So many of the maps, the finest. Default all.

        Raises:
            CASTError: They are not.
        """
        height, width = images.shape[-2:]
        if not torch.compiler.is_exporting() and (height % self.stride or width % self.stride):
            raise CASTError(
                f'inputs of {(height, width)} pixels do not divide by {self.stride}, the stride of '
                f'FoundationGuidedEncoder: set pad_size_divisor={self.size_divisor} in the '
                "model's data_preprocessor"
            )
        maps = self.encoder(images, num_maps)
        known = self.norm(self._known(images))
        return tuple(
            each + F.interpolate(projection(known), each.shape[-2:], mode='bilinear')
            for each, projection in zip(maps, self.projections)
        )

    @torch.no_grad()
    def _known(self, images: Tensor) -> Tensor:
        """The ViT's maps (B, C, H / stride, W / stride), one below the other."""
        patch = self.foundation.strides[-1]
        size = [side // self.stride * patch for side in images.shape[-2:]]
        shown = F.interpolate(
            images * self._scale + self._shift, size, mode='bilinear', antialias=True
        )
        return torch.cat(self.foundation(shown)[-self.num_maps :], dim=1)

    def train(self, mode: bool = True) -> 'FoundationGuidedEncoder':
        """Training mode, but for the ViT."""
        super().train(mode)
        self.foundation.eval()
        return self

    def init_weights(self) -> None:
        """Both encoders' own; projections of zero."""
        self.encoder.init_weights()
        self.foundation.init_weights()
        for projection in self.projections:
            nn.init.zeros_(projection.weight)
            nn.init.zeros_(projection.bias)
        self._is_init = True

    def load_pretrained(self, encoder: str, foundation: str) -> None:
        """Fill both encoders from weights files, see ``TimmEncoder.load_pretrained``."""
        self.encoder.load_pretrained(encoder)
        self.foundation.load_pretrained(foundation)
