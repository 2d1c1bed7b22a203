"""Position embeddings of whole images, which no padding mask is needed for."""

import torch
from mmdet.models.layers import SinePositionalEncoding
from torch import Tensor, nn


def positions_of(encoding: nn.Module, feature: Tensor) -> Tensor:
    """mmdet's embedding of all pixels of a map (B, C, h, w), none of them masked.

    A :class:`SinePositionalEncoding` is separable: its sines are taken of each row and column once,
    with the same values. An exporter can follow this, but not the slices of the original.

    Returns:
        (1, C', h, w).
    """
    height, width = feature.shape[-2:]
    if type(encoding) is not SinePositionalEncoding:
        return encoding(feature.new_zeros((1, height, width), dtype=torch.bool))
    y, x = (_waves(encoding, side, feature.device) for side in (height, width))
    y, x = y[:, None].expand(-1, width, -1), x.expand(height, -1, -1)
    return torch.cat([y, x], dim=2).permute(2, 0, 1)[None]


def _waves(encoding: SinePositionalEncoding, side: int, device: torch.device) -> Tensor:
    """(side, num_feats): sines and cosines in turn."""
    place = torch.arange(1, side + 1, dtype=torch.float32, device=device)
    if encoding.normalize:
        last = place.amax(0)
        place = (place + encoding.offset) / (last + encoding.eps) * encoding.scale
    index = torch.arange(encoding.num_feats, dtype=torch.float32, device=device)
    angle = place[:, None] / encoding.temperature ** (2 * (index // 2) / encoding.num_feats)
    return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)
