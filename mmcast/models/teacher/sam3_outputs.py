"""What SAM3 returns for pairs of an image and a text, and masks made of its logits."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcast.models.student.postprocess import to_bytes


@dataclass
class ImageMaps:
    """What is computed once for an image, for any number of texts.

    Attributes:
        maps: Three maps (B, C, h, w) at strides 3.5, 7 and 14 of the square, finest first.
        position: (B, C, h, w), the position encoding of the last map.
        tokens: (B, 1 or 0, C), what is read along with a text, see :class:`PromptedSAM3`.
    """

    maps: list[Tensor]
    position: Tensor
    tokens: Tensor

    def __getitem__(self, images: Tensor) -> 'ImageMaps':
        maps = [part[images] for part in self.maps]
        return ImageMaps(maps, self.position[images], self.tokens[images])


@dataclass
class PairOutputs:
    """What SAM3 finds for P pairs of an image and a text, with Q queries and L decoder layers.

    Attributes:
        logits: (L, P, Q), how well a query fits the text, if the image has any such object.
        boxes: (L, P, Q, 4) as cx, cy, w, h in 0..1 of the square.
        presence: (L, P), logits of the image having an object of the text.
        queries: (P, Q, C), the last layer's.
        memory: (P, hw, C), the DETR encoder's output.
        text: (P, T, C), features of the text, and of the image's token.
        text_mask: (P, T) of bool, the tokens that are no padding.
    """

    logits: Tensor
    boxes: Tensor
    presence: Tensor
    queries: Tensor
    memory: Tensor
    text: Tensor
    text_mask: Tensor

    @property
    def scores(self) -> Tensor:
        """(P, Q) in 0..1, the last layer's: a query's score times that of the text's presence."""
        return self.logits[-1].float().sigmoid() * self.presence[-1].float().sigmoid()[:, None]


def binary_masks(mask_logits: Tensor, size: tuple[int, int], per_chunk: int) -> Tensor:
    """Masks (N, H, W) of bool from logits (N, h, w), as transformers' post-processing makes them.

    Probabilities are enlarged, not logits, so few at a time are held at full size.
    """
    parts = [
        F.interpolate(chunk[None].float().sigmoid(), size, mode='bilinear')[0] > 0.5
        for chunk in mask_logits.split(per_chunk)
        if len(chunk)
    ]
    return torch.cat(parts) if parts else mask_logits.new_zeros((0, *size), dtype=torch.bool)


def logits_of_size(mask_logits: Tensor, size: tuple[int, int], per_chunk: int) -> Tensor:
    """Logits (N, H, W) of float16 from logits (N, h, w), above 0 where :func:`binary_masks` is
    True.
    """
    parts = [
        F.interpolate(chunk[None].float().sigmoid(), size, mode='bilinear')[0].logit(1e-4).half()
        for chunk in mask_logits.split(per_chunk)
        if len(chunk)
    ]
    return torch.cat(parts) if parts else mask_logits.new_zeros((0, *size), dtype=torch.half)


def byte_probabilities(mask_logits: Tensor, size: tuple[int, int], per_chunk: int) -> Tensor:
    """Probabilities (N, h', w') of uint8, 255 is 1, of a size, from logits (N, h, w)."""
    parts = [
        to_bytes(
            F.interpolate(chunk[None].float().sigmoid(), size, mode='bilinear', antialias=True)[0]
        )
        for chunk in mask_logits.split(per_chunk)
        if len(chunk)
    ]
    return torch.cat(parts) if parts else mask_logits.new_zeros((0, *size), dtype=torch.uint8)


def mask_quality(mask_logits: Tensor) -> Tensor:
    """(N,): the mean probability of the pixels of each mask, from logits (N, h, w); 0 of none.

    MaskFormer's mask score (Cheng et al., arXiv 2107.06278); SAM3's detector estimates no IoU.
    """
    probability = mask_logits.float().sigmoid().flatten(1)
    inside = (probability > 0.5).float()
    return (probability * inside).sum(1) / inside.sum(1).clamp(min=1)


def mask_ious(masks: Tensor) -> Tensor:
    """IoU (N, N) of masks (N, h, w) of bool with each other."""
    flat = masks.flatten(1).float()
    with torch.autocast(masks.device.type, enabled=False):  # numbers of pixels
        both = flat @ flat.T
    areas = flat.sum(1)
    return both / (areas[:, None] + areas - both).clamp(min=1)
