"""The mathematics of the pixel-wise contrastive loss (CAST, section on L_pxl) as pure functions of tensors.

Letters: B images, K queries, C classes, A anchors, M candidates (all pixels of the batch), R negatives per
anchor, E numbers in a query embedding.
"""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SCORES = 2**22  # scores held at a time while negatives are drawn: 16 MiB in float32
SHORTEST_VECTOR = 1e-6  # a shorter vector counts as zero, it has no direction worth a gradient


def l2_normalize(vectors: Tensor) -> Tensor:
    """Scale each row of (..., E) to length 1.

    A zero row stays zero and gets a zero gradient; ``F.normalize`` would hand it one of 1e12.
    """
    squared = vectors.square().sum(-1, keepdim=True)
    is_zero = squared < SHORTEST_VECTOR**2
    return vectors * squared.masked_fill(is_zero, 1).rsqrt().masked_fill(is_zero, 0)


def fuse_pixel_probabilities(mask_logits: Tensor, class_logits: Tensor, size: Tuple[int, int],
                             mask_temperature: float) -> Tuple[Tensor, Tensor]:
    """Mask distribution P_m and expected class distribution F_c of every pixel.

    The softmax comes before the resize: an average of distributions is the expected distribution of the
    larger pixel, an average of logits is not. The bilinear filter is antialiased, so that every input pixel
    counts when the masks shrink; its weights are non-negative and sum to one, so that each pixel keeps a
    distribution over queries.

    Args:
        mask_logits: (B, K, H, W).
        class_logits: (B, K, C+1).
        size: (h, w) of the result.
        mask_temperature: divides the mask logits.

    Returns:
        P_m (B, K, h, w) and F_c (B, C+1, h, w); both sum to 1 over dimension 1. Without queries P_m is empty
        and F_c is zero.
    """
    mask = (mask_logits / mask_temperature).softmax(1)
    if mask.numel():
        mask = F.interpolate(mask, size=tuple(size), mode='bilinear', align_corners=False, antialias=True)
    else:  # interpolate refuses empty tensors
        mask = mask.new_zeros((*mask.shape[:2], *size))
    expected_class = torch.einsum('bkhw,bkc->bchw', mask, class_logits.softmax(-1))
    return mask, expected_class


def debiased_scores(y_anchors: Tensor, y_candidates: Tensor) -> Tensor:
    """s_deb = max(0, 1 - cosine): near 0 for two pixels of one instance, 1 for pixels that share nothing.

    A zero embedding knows nothing of its pixel and scores 1 against everything.

    Args:
        y_anchors: (A, E), of any length; normalised here.
        y_candidates: (M, E).

    Returns:
        (A, M) in [0, 1] for non-negative embeddings. What could be the rounding error of the inner product (E
        times the precision of the dtype) is exactly 0, or equal pixels would be drawn as negatives of each
        other.
    """
    scores = 1 - l2_normalize(y_anchors) @ l2_normalize(y_candidates).T  # (A, M)
    rounding_error = y_anchors.shape[1] * torch.finfo(scores.dtype).eps
    return scores.masked_fill(scores <= rounding_error, 0)


@torch.no_grad()
def sample_negatives(y: Tensor,
                     num_negatives: int,
                     anchors: Optional[Tensor] = None,
                     generator: Optional[torch.Generator] = None) -> Tensor:
    """Draw negatives for each anchor with probability proportional to s_deb.

    Draws are independent, with replacement: only then is each of them exactly proportional to s_deb, however
    large R is. An anchor never draws itself. Scores are computed for a few anchors at a time, memory does not
    grow quadratically.

    Args:
        y: (M, E) embeddings of all pixels; every one is a candidate.
        num_negatives: R, at least 1.
        anchors: (A,) indices into M; default all M.
        generator: of the device of ``y``; default its global one.

    Returns:
        (A, R) int64 indices into M; -1 throughout a row whose anchor has no candidate with a positive score.
    """
    if anchors is None:
        anchors = torch.arange(len(y), device=y.device)
    drawn = anchors.new_empty((len(anchors), num_negatives))
    chunk = max(1, MAX_SCORES // max(1, len(y)))
    for rows, out in zip(anchors.split(chunk), drawn.split(chunk)):
        scores = debiased_scores(y[rows], y).scatter_(1, rows[:, None], 0)  # (chunk, M)
        hopeless = scores.sum(1, keepdim=True) == 0
        scores.masked_fill_(hopeless, 1)  # multinomial refuses a row of zeros
        out.copy_(torch.multinomial(scores, num_negatives, replacement=True, generator=generator))
        out.masked_fill_(hopeless, -1)
    return drawn


def nt_xent(positive: Tensor, negative: Tensor) -> Tensor:
    """Mean over anchors of -log(exp(s+) / (exp(s+) + sum_r exp(s-_r))).

    Args:
        positive: (A,) s+, similarities already divided by the temperature; finite.
        negative: (A, R) s-; an entry of -inf is no negative. An anchor without any negative loses 0, with
        gradient 0.

    Returns:
        Scalar; 0 (with a graph) for no anchors.
    """
    logits = torch.cat([positive[:, None], negative], dim=1)  # (A, 1+R)
    return (logits.logsumexp(1) - positive).sum() / max(1, len(positive))
