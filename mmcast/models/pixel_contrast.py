"""What the pixel loss needs in addition to the network: strong view, projector, loss. It exists in
training only.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmdet.structures import SampleList
from torch import Tensor, nn

from mmcast.errors import CASTError
from mmcast.registry import MODELS

SOURCES = ('encoder', 'pixel_decoder')


@MODELS.register_module()
class PixelContrast(nn.Module):
    """Project weak and strong encoder features to embeddings and contrast them: L_pxl of the paper.

    Args:
        in_channels: Channels of the map that is projected.
        embed_dims: Dimensions D of the embeddings.
        hidden_dims: Width of the two hidden layers; ``None`` means ``in_channels``.
        source: Whose maps: 'encoder' (finest first, of one stride for a ViT), or 'pixel_decoder'
            (coarsest first; the student's have strides 28, 14, 7 and 3.5), which costs the strong
            view a pass through the pixel decoder as well.
        feature_index: Which of those maps.
        pool: Average-pooling factor before the projection; 2 brings DINOv2's stride 14 to the
            paper's 28. A side of n pixels becomes ceil(n / pool) cells of one size.
        loss: Config of the loss, ``PixelContrastiveLoss`` by default.
        strong_view: Config of the strong view, ``PhotometricStrongView`` by default.
        loss_weight: l_pxl of the objective.

    Attributes:
        observer: Called in every forward pass, if set, with what the loss is about to see:
            embeddings of the weak and of the strong view (detached), mask logits, class logits, and
            the samples of the batch.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dims: int = 128,
        hidden_dims: int | None = None,
        source: str = 'encoder',
        feature_index: int = -1,
        pool: int = 2,
        loss: dict | None = None,
        strong_view: dict | None = None,
        loss_weight: float = 0.1,
    ) -> None:
        super().__init__()
        if source not in SOURCES:
            raise CASTError(f'pixel_contrast.source={source!r} is unknown, use one of {SOURCES}')
        self.source = source
        self.observer: Callable | None = None
        hidden = hidden_dims or in_channels
        self.feature_index = feature_index
        self.pool = pool
        self.loss_weight = loss_weight
        # Three bias-free linear layers, applied to every pixel alike.
        self.projector = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, embed_dims, 1, bias=False),
        )
        # One option may be given alone, as model.pixel_contrast.loss.sampling=mask.
        self.loss = MODELS.build(dict(type='PixelContrastiveLoss') | dict(loss or {}))
        self.strong_view = MODELS.build(
            dict(type='PhotometricStrongView') | dict(strong_view or {})
        )

    def project(self, features: Sequence[Tensor]) -> Tensor:
        """Embeddings (B, D, h, w) of one of the maps; normalised by the loss, not here."""
        feature = features[self.feature_index]
        return self.projector(_pooled(feature, self.pool))

    def forward(
        self,
        weak: Sequence[Tensor],
        strong: Sequence[Tensor],
        mask_logits: Tensor,
        class_logits: Tensor,
        progress: float,
        data_samples: SampleList | None = None,
    ) -> Tensor:
        """The weighted loss, a scalar.

        Args:
            weak: Maps of the weak view, with gradient.
            strong: Maps of the strong view; detached here, so that only the projector learns from
                them.
            mask_logits: (B, K, H, W) on the weak view.
            class_logits: (B, K, C + 1) on the weak view.
            progress: Fraction of the training that is done, in [0, 1].
            data_samples: For the observer.
        """
        z_weak, z_strong = (
            self.project(weak),
            self.project([feature.detach() for feature in strong]),
        )
        if self.observer is not None:
            self.observer(
                z_weak.detach(), z_strong.detach(), mask_logits, class_logits, data_samples
            )
        return self.loss_weight * self.loss(z_weak, z_strong, mask_logits, class_logits, progress)


def _pooled(feature: Tensor, factor: int) -> Tensor:
    """The means over equal cells of a map (B, C, h, w), which are those that the loss resizes masks
    onto. Windows of ``factor`` pixels would be up to half a cell beside them where a side is no
    multiple.
    """
    height, width = feature.shape[-2:]
    if height % factor == width % factor == 0:
        return F.avg_pool2d(feature, factor) if factor > 1 else feature
    exact = torch.promote_types(feature.dtype, torch.float32)  # of the sums, as in avg_pool2d
    rows, columns = (
        _shares(side, -(-side // factor)).to(feature.device, exact) for side in (height, width)
    )
    with torch.autocast(feature.device.type, enabled=False):
        return (rows @ feature.to(exact) @ columns.T).to(feature.dtype)


def _shares(length: int, number: int) -> Tensor:
    """(number, length): the weight of each pixel in the mean over each of the equal cells."""
    edges = torch.linspace(0, length, number + 1, dtype=torch.float64)
    start = torch.arange(length, dtype=torch.float64)
    inside = torch.minimum(edges[1:, None], start + 1) - torch.maximum(edges[:-1, None], start)
    return inside.clamp(min=0) * number / length
