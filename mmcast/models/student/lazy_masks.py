"""Mask logits that are made where they are needed: at points, of matched queries, of kept
instances.
"""

from collections.abc import Iterator, Sequence

import torch
from mmcv.ops import point_sample
from torch import Tensor


class LazyMasks:
    """The mask logits of every decoder layer, as what they are products of.

    ``masks[i]`` is layer i as a tensor (B, K, H, W), so this reads like mmdet's list of such
    tensors. Losses and predictions need few of those numbers, and whatever is bilinear in the
    pixels (points, resizing) can be taken of the features before the product with the queries.

    Args:
        embeds: (L, B, K, C) one mask embedding per query.
        features: (B, C, H, W) per-pixel features.
    """

    def __init__(self, embeds: Tensor, features: Tensor) -> None:
        self.embeds = embeds
        self.features = features

    def __len__(self) -> int:
        return len(self.embeds)

    def __getitem__(self, layer: int) -> Tensor:
        """(B, K, H, W)."""
        return torch.einsum('bkc,bchw->bkhw', self.embeds[layer], self.features)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[layer] for layer in range(len(self)))

    def select(self, images: Sequence[int]) -> 'LazyMasks':
        """The masks of some images."""
        return LazyMasks(self.embeds[:, images], self.features[images])

    def at(self, points: Tensor, image: int) -> Tensor:
        """Logits of all queries of one image at points (P, 2), x and y in [0, 1]: (L, K, P)."""
        features = point_sample(self.features[image : image + 1].float(), points[None])[0]  # (C, P)
        return self.embeds[:, image] @ features.to(self.embeds.dtype)

    def of(self, queries: Tensor, sizes: Sequence[int]) -> Tensor:
        """Logits of some queries only.

        Args:
            queries: (L, G) one query a ground truth and layer, grouped by image.
            sizes: How many of the G belong to each image.

        Returns:
            (L, G, H, W).
        """
        parts = []
        images = zip(queries.split(list(sizes), 1), self.embeds.unbind(1), self.features)
        for chosen, embeds, features in images:
            index = chosen[..., None].expand(-1, -1, embeds.shape[-1])
            parts.append(torch.einsum('lgc,chw->lghw', embeds.gather(1, index), features))
        return torch.cat(parts, dim=1)

    def zero(self) -> Tensor:
        """0 with a graph to everything the masks are made of."""
        return (self.embeds.float().sum() + self.features.float().sum()) * 0
