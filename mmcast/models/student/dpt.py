"""DPT pixel decoder: reassemble plain transformer features into a pyramid and fuse it top down.

It has no custom operator and follows the structure of "Vision Transformers for Dense Prediction"
(Ranftl et al., ICCV 2021, sections 3.2 and 3.3).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from mmcast.registry import MODELS

#: How a level's map is resized before fusion: the strides 3.5, 7, 14 and 28 of a ViT with patch
#: size 14.
VIT_SCALES = (4, 2, 1, 0.5)


def _resize_layer(channels: int, scale: float) -> nn.Module:
    """A learned resize by 4, 2, 1 or 0.5; the last rounds odd sizes up."""
    if scale == 1:
        return nn.Identity()
    if scale == 0.5:
        return nn.Conv2d(channels, channels, 3, stride=2, padding=1)
    if scale in (2, 4):
        return nn.ConvTranspose2d(channels, channels, kernel_size=scale, stride=scale)
    raise ValueError(f'DPTPixelDecoder: scale {scale} is not one of 4, 2, 1, 0.5')


class ResidualConvUnit(nn.Module):
    """Two pre-activated 3x3 convolutions and an identity shortcut (RefineNet's unit)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class FusionBlock(nn.Module):
    """Refine the lateral map, add the one from below if there is any, refine again, project."""

    def __init__(self, channels: int, below_channels: int) -> None:
        super().__init__()
        self.below = (
            nn.Identity() if below_channels == channels else nn.Conv2d(below_channels, channels, 1)
        )
        self.lateral = ResidualConvUnit(channels)
        self.refine = ResidualConvUnit(channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, lateral: Tensor, below: Tensor | None = None) -> Tensor:
        x = self.lateral(lateral)
        if below is not None:
            # By size, not by factor two: a level of odd size has a coarser neighbour that was
            # rounded up.
            x = x + F.interpolate(
                self.below(below), x.shape[-2:], mode='bilinear', align_corners=False
            )
        return self.project(self.refine(x))


@MODELS.register_module()
class DPTPixelDecoder(BaseModule):
    """Pixel decoder for a Mask2Former head over encoder features of one stride (ViT) or a pyramid
    (CNN).

    Args:
        in_channels: Channels of the encoder's feature maps, finest first; four for DINOv2.
        feat_channels: Channels of the fused maps, which the transformer decoder attends to.
        out_channels: Channels of the per-pixel mask features.
        reassemble_channels: Channels of each level while it is resized.
        scales: Resize factor of each level: ``(4, 2, 1, 0.5)`` for a ViT, ``(1, 1, 1, 1)`` for a
            CNN's pyramid.
        num_groups: Groups of the normalisation after the lateral convolutions.
        num_outs: Fused maps passed to the transformer decoder, from the coarsest on.
        fine_channels: Channels of the finest level, of which only the mask features are made, by
            default ``feat_channels``. Most of the decoder's operations are there, and they grow
            with its square.
        init_cfg: As everywhere in MMEngine; by default Kaiming, see :meth:`init_weights`.

    Raises:
        ValueError: If the per-level arguments differ in length, a scale is not supported, or the
            finest level is of other channels than the rest and returned.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        feat_channels: int = 256,
        out_channels: int = 256,
        reassemble_channels: Sequence[int] = (96, 192, 384, 768),
        scales: Sequence[float] = VIT_SCALES,
        num_groups: int = 32,
        num_outs: int = 3,
        fine_channels: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not len(in_channels) == len(reassemble_channels) == len(scales):
            raise ValueError(
                'DPTPixelDecoder: in_channels, reassemble_channels and scales need one entry a '
                f'level, got {len(in_channels)}, {len(reassemble_channels)} and {len(scales)}'
            )
        channels = [fine_channels or feat_channels, *[feat_channels] * (len(scales) - 1)]
        if num_outs == len(scales) and channels[0] != feat_channels:
            raise ValueError(
                f'DPTPixelDecoder: fine_channels={fine_channels} leaves {len(scales) - 1} maps of '
                f'{feat_channels} channels; num_outs={num_outs} asks for more'
            )
        self.num_outs = num_outs
        self.reassemble = ModuleList(
            nn.Sequential(nn.Conv2d(c_in, c, 1), _resize_layer(c, scale))
            for c_in, c, scale in zip(in_channels, reassemble_channels, scales)
        )
        norm_cfg = dict(type='GN', num_groups=num_groups)
        self.lateral = ModuleList(
            ConvModule(c_in, c, 3, padding=1, norm_cfg=norm_cfg, act_cfg=None)
            for c_in, c in zip(reassemble_channels, channels)
        )
        self.fusion = ModuleList(
            FusionBlock(c, below) for c, below in zip(channels, [*channels[1:], channels[-1]])
        )
        self.mask_feature = nn.Sequential(
            ConvModule(channels[0], channels[0], 3, padding=1, norm_cfg=norm_cfg),
            nn.Conv2d(channels[0], out_channels, 3, padding=1),
        )

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Decode.

        Args:
            feats: Encoder maps, finest first, each (B, C_i, h_i, w_i).

        Returns:
            Mask features (B, out_channels, H, W) at the finest stride, and ``num_outs`` maps
            (B, feat_channels, h, w) from the coarsest to finer ones.

        Raises:
            ValueError: If the encoder gives another number of maps; the levels would be paired
                wrongly.
        """
        if len(feats) != len(self.lateral):
            raise ValueError(
                f'DPTPixelDecoder: got {len(feats)} feature maps for {len(self.lateral)} levels; '
                'make out_indices of the backbone and in_channels of the decoder agree'
            )
        laterals = [
            conv(resize(x)) for x, resize, conv in zip(feats, self.reassemble, self.lateral)
        ]
        fused: list[Tensor] = []
        for lateral, block in zip(reversed(laterals), reversed(self.fusion)):
            fused.append(block(lateral, fused[-1] if fused else None))
        return self.mask_feature(fused[-1]), fused[: self.num_outs]

    def init_weights(self) -> None:
        """As ``init_cfg`` says; without one Kaiming throughout.

        What follows is a ReLU or a sum, PyTorch's default is too small for depth.
        """
        super().init_weights()
        if self.init_cfg:
            return
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias) if module.bias is not None else None
