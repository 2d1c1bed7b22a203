"""mmdet's deformable pixel decoder as one graph of standard operators, for images of any size."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers import MSDeformAttnPixelDecoder
from torch import Tensor

from mmcast.models.student.positions import positions_of


def decode_deformable(
    decoder: MSDeformAttnPixelDecoder, features: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """``decoder(features)`` in evaluation, with its modules and values.

    The original makes tensors of the maps' sizes and reads them back as numbers, which an exporter
    cannot follow.

    Args:
        decoder: the module.
        features: the encoder's maps, finest first.

    Returns:
        The map of the masks, and those that the queries attend to, coarsest first.
    """
    first = decoder.num_input_levels - decoder.num_encoder_levels
    levels = list(features[first:])[::-1]
    sizes = [(level.shape[2], level.shape[3]) for level in levels]
    tokens = torch.cat(
        [
            conv(level).flatten(2).transpose(1, 2)
            for conv, level in zip(decoder.input_convs, levels)
        ],
        dim=1,
    )
    positions = torch.cat(
        [
            positions_of(decoder.postional_encoding, level).flatten(2).transpose(1, 2) + embedding
            for level, embedding in zip(levels, decoder.level_encoding.weight)
        ],
        dim=1,
    )
    centres = torch.cat([_centres(height, width, tokens) for height, width in sizes])
    for layer in decoder.encoder.layers:
        tokens = layer.norms[0](attend(layer.self_attn, tokens, positions, centres, sizes))
        tokens = layer.norms[1](layer.ffn(tokens))
    parts = tokens.split([height * width for height, width in sizes], dim=1)
    maps = [part.transpose(1, 2).unflatten(2, size) for part, size in zip(parts, sizes)]
    for i in reversed(range(first)):
        fine = decoder.lateral_convs[i](features[i])
        coarse = F.interpolate(maps[-1], fine.shape[-2:], mode='bilinear', align_corners=False)
        maps.append(decoder.output_convs[i](fine + coarse))
    return decoder.mask_feature(maps[-1]), maps[: decoder.num_outs]


def attend(
    attention: MultiScaleDeformableAttention,
    tokens: Tensor,
    positions: Tensor,
    centres: Tensor,
    sizes: Sequence[tuple[int, int]],
) -> Tensor:
    """Multi-scale deformable self attention (Deformable DETR, equation 3), its input added.

    Args:
        attention: the module.
        tokens: (B, N, C) of all levels, N the sum of their pixels.
        positions: (1, N, C) embeddings.
        centres: (N, 2) of the tokens' pixels, x and y in [0, 1].
        sizes: height and width of each level.

    Returns:
        (B, N, C).
    """
    heads, levels, points = attention.num_heads, attention.num_levels, attention.num_points
    query = tokens + positions
    offsets = attention.sampling_offsets(query).unflatten(-1, (heads, levels, points, 2))
    weights = attention.attention_weights(query).unflatten(-1, (heads, -1)).softmax(-1)
    values = attention.value_proj(tokens).unflatten(-1, (heads, -1)).permute(0, 2, 3, 1)
    sampled = []
    for level, (height, width) in enumerate(sizes):
        value = values.split([h * w for h, w in sizes], dim=3)[level]
        x, y = (
            centres[:, place, None, None] + offsets[:, :, :, level, :, place] / side
            for place, side in enumerate((width, height))
        )  # (B, N, heads, points)
        grid = torch.stack([x, y], dim=-1).transpose(1, 2).flatten(0, 1) * 2 - 1
        value = value.flatten(0, 1).unflatten(2, (height, width))
        sampled.append(F.grid_sample(value, grid, align_corners=False))
    weights = weights.transpose(1, 2).flatten(0, 1)[:, None]  # (B heads, 1, N, levels points)
    mixed = (torch.stack(sampled, dim=-2).flatten(-2) * weights).sum(-1)
    mixed = mixed.unflatten(0, (-1, heads)).flatten(1, 2).transpose(1, 2)
    return tokens + attention.output_proj(mixed)


def _centres(height: int, width: int, like: Tensor) -> Tensor:
    """(h w, 2): x and y of the pixels' centres in [0, 1]."""
    rows, columns = (
        (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
        for side in (height, width)
    )
    x, y = columns.expand(height, -1), rows[:, None].expand(-1, width)
    return torch.stack([x, y], dim=-1).flatten(0, 1)
