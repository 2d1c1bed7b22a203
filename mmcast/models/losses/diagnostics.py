"""What the pixel loss does to the embeddings: the quantities of the paper's Figure 3."""

import torch
from torch import Tensor

from mmcast.models.losses.functional import (
    drawn_products,
    l2_normalize,
    sample_negatives,
)


@torch.no_grad()
def pixel_statistics(
    weak: Tensor,
    strong: Tensor,
    y: Tensor,
    instance: Tensor,
    is_pseudo: Tensor,
    num_anchors: int,
    num_negatives: int,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """Margin, false negatives and similarities on a random part of the pixels.

    Negatives are sampled as the loss samples them. An anchor on an instance has a false negative
    where one sampled is of that instance. The margin is the mean cosine of weak and strong
    embedding of a pixel, less the mean cosine of a pixel and its true negatives, over the anchors
    on instances.

    Args:
        weak: (M, D) embeddings of the weak view, of any norm.
        strong: (M, D) those of the strong view.
        y: (M, E) query embeddings.
        instance: (M,) the instance a pixel lies on, numbered through the batch; -1 for none.
        is_pseudo: (M,) whether that is known from pseudo-labels only.
        num_anchors: How many pixels to sample.
        num_negatives: Sampled for each of them.
        generator: Of the device of the tensors.

    Returns:
        ``margin``, ``fnr`` (of all), ``fnr_labeled``, ``fnr_pseudo``, ``positive``, ``negative``
        (mean cosines) and ``no_negative`` (fraction of anchors that have none). What no anchor
        tells is left out.
    """
    anchors = torch.randperm(len(y), device=y.device, generator=generator)[:num_anchors]
    drawn = sample_negatives(y, num_negatives, anchors, generator)
    has_negative = drawn[:, 0] >= 0
    drawn = drawn.clamp_min(0)
    weak, strong = l2_normalize(weak.float()), l2_normalize(strong.float())
    positive = (weak[anchors] * strong[anchors]).sum(1)  # (A,)
    negative = drawn_products(weak[anchors], weak, drawn)  # (A, R)
    own = instance[anchors]
    judged = has_negative & (own >= 0)
    is_false = instance[drawn] == own[:, None]
    pseudo = is_pseudo[anchors]
    means = dict(
        margin=(positive, judged, negative, judged[:, None] & ~is_false),
        fnr=(is_false, judged[:, None]),
        fnr_labeled=(is_false, (judged & ~pseudo)[:, None]),
        fnr_pseudo=(is_false, (judged & pseudo)[:, None]),
        positive=(positive, torch.ones_like(judged)),
        negative=(negative, has_negative[:, None]),
        no_negative=(~has_negative, torch.ones_like(judged)),
    )
    values = torch.stack(
        [_mean(*parts[:2]) - (_mean(*parts[2:]) if parts[2:] else 0) for parts in means.values()]
    )
    return {name: value for name, value in zip(means, values.tolist()) if value == value}  # not NaN


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the entries where ``counted``, which is broadcast; NaN for none."""
    counted = counted.expand_as(values)
    return (values * counted).sum(dtype=torch.float64) / counted.sum()
