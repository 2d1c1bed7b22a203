"""mmdet's Mask2Former decoder layers, run through PyTorch's fused attention.

The modules and their weights stay mmdet's; mmcv's wrapper would ask for the attention weights,
which ``nn.MultiheadAttention`` can give only by materialising them.
"""

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import MultiheadAttention
from torch import Tensor, nn


def attend(
    module: MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor | None = None,
) -> Tensor:
    """What ``module`` adds to its input.

    Args:
        module: Whose weights, heads and dropouts are used.
        query: (B, K, C).
        key: (B, N, C).
        value: (B, N, C).
        allowed: Which pairs may attend, bool, to be broadcast to (B, heads, K, N); default all.

    Returns:
        (B, K, C).
    """
    attention: nn.MultiheadAttention = module.attn
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    heads = [
        F.linear(x, w, b).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
        for x, w, b in zip((query, key, value), weights, biases)
    ]
    if allowed is not None and torch.compiler.is_exporting():
        # ONNX Runtime would make these numbers anew for every head.
        allowed = torch.where(allowed, 0.0, -torch.inf).to(heads[0].dtype)
    dropout = attention.dropout if module.training else 0.0
    mixed = F.scaled_dot_product_attention(*heads, attn_mask=allowed, dropout_p=dropout)
    return module.dropout_layer(
        module.proj_drop(attention.out_proj(mixed.transpose(1, 2).flatten(2)))
    )


def decoder_layer(
    layer: nn.Module, query: Tensor, query_pos: Tensor, key: Tensor, value: Tensor, allowed: Tensor
) -> Tensor:
    """One ``Mask2FormerTransformerDecoderLayer``: masked cross attention, self attention,
    feed-forward.

    Args:
        layer: The module.
        query: (B, K, C).
        query_pos: (B, K, C), the queries' position embeddings.
        key: (B, N, C) pixels with their positions added.
        value: (B, N, C) pixels without.
        allowed: (B, 1, K, N) which pixels a query attends to, of bool.

    Returns:
        (B, K, C).
    """
    query = layer.norms[0](query + attend(layer.cross_attn, query + query_pos, key, value, allowed))
    placed = query + query_pos
    query = layer.norms[1](query + attend(layer.self_attn, placed, placed, query))
    return layer.norms[2](layer.ffn(query))
