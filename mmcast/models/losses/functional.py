"""The mathematics of the pixel-wise contrastive loss (CAST, section on L_pxl) as pure functions of
tensors.

Letters: B images, K queries, C classes, A anchors, M candidates (all pixels of the batch), R
negatives per anchor, D dimensions of an embedding, E of a query embedding. Nothing here holds an
(A, M) matrix: memory grows with A R and with M, never with A M.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ENTRIES = (
    2**17
)  # scores, or pairs of anchor and candidate, at a time on a CPU: its cache holds them
MIN_ROWS = (
    64  # of a matrix product: with fewer it would read the candidates more often than it computes
)
GPU_FACTOR = 16  # a GPU takes as many times more at a time, smaller pieces leave it idle
PRODUCTS_PER_PAIR = (
    8  # entries of a matrix product that cost as much as one pair of vectors picked at random
)
ALIGNED = 16  # numbers; inner products of odd lengths take three times as long on a CPU
SHORTEST_VECTOR = 1e-6  # a shorter vector counts as zero, it has no direction worth a gradient


def l2_normalize(vectors: Tensor) -> Tensor:
    """Scale each row of ``vectors`` (..., E) to length 1.

    A zero row stays zero and gets a zero gradient; ``F.normalize`` would give it one of 1e12.
    """
    squared = vectors.square().sum(-1, keepdim=True)
    is_zero = squared < SHORTEST_VECTOR**2
    return vectors * squared.masked_fill(is_zero, 1).rsqrt().masked_fill(is_zero, 0)


def fuse_pixel_probabilities(
    mask_logits: Tensor, class_logits: Tensor, size: tuple[int, int], mask_temperature: float
) -> tuple[Tensor, Tensor]:
    """Mask distribution P_m and expected class distribution F_c of every pixel.

    The softmax comes before the resize: an average of distributions is the expected distribution of
    the larger pixel, an average of logits is not. The bilinear filter is antialiased, so that every
    input pixel counts when the masks shrink; its weights are non-negative and sum to one, so that
    each pixel keeps a distribution over queries.

    Args:
        mask_logits: (B, K, H, W).
        class_logits: (B, K, C+1).
        size: (h, w) of the result.
        mask_temperature: divides the mask logits.

    Returns:
        P_m (B, K, h, w) and F_c (B, C+1, h, w); both sum to 1 over dimension 1. Without queries P_m
        is empty and F_c is zero.
    """
    mask = (mask_logits / mask_temperature).softmax(1)
    if mask.numel():
        mask = F.interpolate(
            mask, size=tuple(size), mode='bilinear', align_corners=False, antialias=True
        )
    else:  # interpolate refuses empty tensors
        mask = mask.new_zeros((*mask.shape[:2], *size))
    expected_class = torch.einsum('bkhw,bkc->bchw', mask, class_logits.softmax(-1))
    return mask, expected_class


def debiased_scores(y_anchors: Tensor, y_candidates: Tensor) -> Tensor:
    """s_deb = max(0, 1 - cosine): near 0 for two pixels of one instance, 1 for pixels that share
    nothing.

    A zero embedding knows nothing of its pixel and scores 1 against everything.

    Args:
        y_anchors: (A, E), of any length; normalised here.
        y_candidates: (M, E).

    Returns:
        (A, M) in [0, 1] for non-negative embeddings. What could be the rounding error of the inner
        product (E times the precision of the dtype) is exactly 0, or equal pixels would be sampled
        as negatives of each other.
    """
    return _scores_of(l2_normalize(y_anchors) @ l2_normalize(y_candidates).T, y_anchors.shape[1])


def _scores_of(cosines: Tensor, length: int) -> Tensor:
    """s_deb of inner products of unit vectors of ``length`` numbers; overwrites the products."""
    scores = cosines.neg_().add_(1)
    return scores.masked_fill_(scores <= length * torch.finfo(scores.dtype).eps, 0)


@torch.no_grad()
def sample_negatives(
    y: Tensor,
    num_negatives: int,
    anchors: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample negatives for each anchor with probability proportional to s_deb.

    Samples are independent, with replacement: only then is each of them exactly proportional to
    s_deb, however large R is. An anchor is never its own negative.

    Rejection makes the cost independent of M: a candidate is proposed uniformly and accepted with
    probability s_deb, so what is accepted has exactly the distribution wanted. The mean of s_deb
    over the candidates is one inner product, so the number of proposals is known beforehand. An
    anchor that would need more than M / ``PRODUCTS_PER_PAIR`` of them, or ran short of them,
    samples (the rest) from its scores of all candidates, a few anchors at a time; that is the same
    distribution.

    Args:
        y: (M, E) embeddings of all pixels; every one is a candidate.
        num_negatives: R, at least 1.
        anchors: (A,) indices into M; default all M.
        generator: of the device of ``y``; default its global one.

    Returns:
        (A, R) int64 indices into M; -1 throughout a row whose anchor has no candidate with a
        positive score.
    """
    if anchors is None:
        anchors = torch.arange(len(y), device=y.device)
    length = y.shape[1]
    y = F.pad(l2_normalize(y), (0, -length % ALIGNED or (0 if length else ALIGNED)))
    largest = 2 - (y >= 0).all().to(
        y.dtype
    )  # scores reach 1, and 2 where an embedding has negative entries
    drawn = anchors.new_full((len(anchors), num_negatives), -1)
    proposals = _proposals_needed(y, anchors, num_negatives, largest)  # (A,), on the host
    easy = (proposals <= len(y) / PRODUCTS_PER_PAIR).nonzero().flatten()
    for part in _split(easy, proposals[easy], _at_a_time(y.device)):
        rows = part.to(y.device)
        drawn[rows] = _draw_by_rejection(
            y,
            anchors[rows],
            proposals[part].to(y.device),
            num_negatives,
            length,
            largest,
            generator,
        )
    unfinished = (drawn[:, -1] < 0).nonzero().flatten()
    for rows in unfinished.split(_rows_at_a_time(y)):
        rest = _draw_from_all(y, anchors[rows], num_negatives, length, generator)
        drawn[rows] = drawn[rows].where(drawn[rows] >= 0, rest)
    return drawn


def _proposals_needed(y: Tensor, anchors: Tensor, num_negatives: int, largest: Tensor) -> Tensor:
    """Proposals (A,) of which R are accepted in 99.9 % of cases, on the host; may be infinite."""
    own = y[anchors]
    total = (
        len(y) - own @ y.sum(0) - (1 - own.square().sum(1))
    )  # of the scores, without the anchor's own
    accepted = (total / (len(y) * largest)).double().cpu().clamp(0, 1)
    spread = (num_negatives * (1 - accepted)).sqrt()
    return ((num_negatives + 3 * spread) / accepted + 1).ceil()


def _split(rows: Tensor, costs: Tensor, budget: int) -> tuple[Tensor, ...]:
    """Consecutive parts of rows (N,), each of about ``budget`` in the sum of its costs (N,)."""
    if not len(rows):
        return ()
    _, sizes = (costs.cumsum(0) // budget).unique_consecutive(return_counts=True)
    return rows.split(sizes.tolist())


def _draw_by_rejection(
    y: Tensor,
    anchors: Tensor,
    proposals: Tensor,
    num_negatives: int,
    length: int,
    largest: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """The first R accepted of ``proposals`` (A,) uniform candidates of each anchor; -1 where there
    are fewer.

    How many are accepted says nothing about which, so the missing ones may be sampled in another
    way.
    """
    counts = proposals.long()
    anchor_of = torch.arange(len(anchors), device=y.device).repeat_interleave(counts)  # (P,)
    candidates = torch.randint(len(y), anchor_of.shape, device=y.device, generator=generator)
    cosines = pair_products(y[anchors], y, candidates, counts.cumsum(0) - counts)
    scores = _scores_of(cosines, length).masked_fill_(candidates == anchors[anchor_of], 0)
    luck = torch.rand(scores.shape, dtype=y.dtype, device=y.device, generator=generator) * largest
    accepted = (luck < scores).nonzero().flatten()
    anchor_of = anchor_of[accepted]
    first = torch.searchsorted(anchor_of, torch.arange(len(anchors), device=y.device))
    rank = torch.arange(len(accepted), device=y.device) - first[anchor_of]
    kept = rank < num_negatives
    drawn = anchors.new_full((len(anchors), num_negatives), -1)
    drawn[anchor_of[kept], rank[kept]] = candidates[accepted[kept]]
    return drawn


def _draw_from_all(
    y: Tensor,
    anchors: Tensor,
    num_negatives: int,
    length: int,
    generator: torch.Generator | None,
) -> Tensor:
    """R samples for each anchor from its scores of all candidates; -1 where none is positive."""
    scores = _scores_of(y[anchors] @ y.T, length).scatter_(1, anchors[:, None], 0)
    hopeless = scores.sum(1, keepdim=True) == 0
    scores.masked_fill_(hopeless, 1)  # multinomial refuses a row of zeros
    # Cumulative sums of float32 would be wrong by some percent of a candidate's share when M is
    # large.
    drawn = torch.multinomial(scores.double(), num_negatives, replacement=True, generator=generator)
    return drawn.masked_fill_(hopeless, -1)


def pair_products(anchors: Tensor, candidates: Tensor, columns: Tensor, starts: Tensor) -> Tensor:
    """Inner products of listed pairs, without an (A, M) matrix and without copies of the vectors.

    Args:
        anchors: (A, E).
        candidates: (M, E).
        columns: (P,) the candidates that anchor 0 is paired with, then those of anchor 1, and so
            on.
        starts: (A,) where the list of each anchor begins.

    Returns:
        (P,), without a graph.
    """
    # The gradient of a weighted sum of vectors with respect to a weight is such a product;
    # embedding_bag has that as one fused kernel on every device.
    with torch.enable_grad():
        weights = candidates.new_zeros(len(columns)).requires_grad_()
        sums = F.embedding_bag(
            columns, candidates.detach(), starts, mode='sum', per_sample_weights=weights
        )
    return torch.autograd.grad(sums, weights, anchors.detach())[0]


class _DrawnProducts(torch.autograd.Function):
    """(A, D), (M, D) and indices (A, R) into M -> (A, R) inner products, linear in A R also
    backwards.
    """

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, candidates: Tensor, drawn: Tensor) -> Tensor:
        drawn = drawn.int()  # half of what is kept for the backward
        ctx.save_for_backward(anchors, candidates, drawn)
        rows = max(1, _at_a_time(drawn.device) // drawn.shape[1])
        return torch.cat(
            [
                pair_products(a, candidates, d.flatten(), _starts(d)).view(d.shape)
                for a, d in _tiles(rows, anchors, drawn)
            ]
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        anchors, candidates, drawn = ctx.saved_tensors
        of_anchors, of_candidates = [], torch.zeros_like(candidates)
        # Each part makes a whole (M, D), so a part has some pairs for each candidate.
        rows = max(1, max(_at_a_time(drawn.device), 4 * len(candidates)) // drawn.shape[1])
        for a, d, g in _tiles(rows, anchors, drawn, gradient):
            of_anchors.append(F.embedding_bag(d, candidates, mode='sum', per_sample_weights=g))
            of_candidates += _sum_by_candidate(a, d, g, len(candidates))
        return torch.cat(of_anchors), of_candidates, None


def _tiles(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of equal length in pieces of ``rows``."""
    return zip(*(tensor.split(rows) for tensor in tensors))


def _starts(drawn: Tensor) -> Tensor:
    return torch.arange(0, drawn.numel(), drawn.shape[1], dtype=drawn.dtype, device=drawn.device)


def _sum_by_candidate(
    anchors: Tensor, drawn: Tensor, weights: Tensor, num_candidates: int
) -> Tensor:
    """(M, D): for every candidate the weighted sum of the anchors that drew it.

    Sorted by candidate it is a sum of segments: faster than scattered additions, and the same in
    every run.
    """
    candidate, order = drawn.flatten().sort()
    every = torch.arange(num_candidates, dtype=torch.int32, device=drawn.device)
    starts = torch.searchsorted(candidate, every)
    return F.embedding_bag(
        order // drawn.shape[1],
        anchors,
        starts,
        mode='sum',
        per_sample_weights=weights.flatten()[order],
    )


def drawn_products(anchors: Tensor, candidates: Tensor, drawn: Tensor) -> Tensor:
    """Inner products of each anchor with its sampled negatives, memory linear in A R and in M.

    Args:
        anchors: (A, D).
        candidates: (M, D).
        drawn: (A, R) indices into M.

    Returns:
        (A, R), with gradients to anchors and candidates.
    """
    if not drawn.numel():
        return (anchors.sum() + candidates.sum()) * 0 + anchors.new_zeros(drawn.shape)
    return _DrawnProducts.apply(anchors, candidates, drawn)


class _LogMeanExponential(torch.autograd.Function):
    """See :func:`expected_negative`; scores and products are made again, tile by tile, in the
    backward.
    """

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, candidates: Tensor, y: Tensor, indices: Tensor
    ) -> Tensor:
        log_sums, log_scores = [], []
        for a, i in _tiles(_rows_at_a_time(candidates), anchors, indices):
            logits, scores = _weighted_logits(a, candidates, y, i)
            log_sums.append(logits.logsumexp(1))
            log_scores.append(scores.log())
        log_sums = torch.cat(log_sums)
        ctx.save_for_backward(anchors, candidates, y, indices, log_sums)
        return (log_sums - torch.cat(log_scores)).masked_fill(log_sums.isneginf(), -math.inf)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        anchors, candidates, y, indices, log_sums = ctx.saved_tensors
        of_anchors, of_candidates = [], torch.zeros_like(candidates)
        tiles = _tiles(_rows_at_a_time(candidates), anchors, indices, log_sums, gradient)
        for a, i, lse, g in tiles:
            logits, _ = _weighted_logits(a, candidates, y, i)
            share = logits.sub_(lse.masked_fill(lse.isneginf(), 0)[:, None]).exp_().mul_(g[:, None])
            of_anchors.append(share @ candidates)
            of_candidates.addmm_(share.T, a)
        return torch.cat(of_anchors), of_candidates, None, None


def expected_negative(anchors: Tensor, candidates: Tensor, y: Tensor, indices: Tensor) -> Tensor:
    """Log of the expectation of exp(<anchor, negative>) over a negative sampled in proportion to
    s_deb.

    R times that expectation is what the sum over R sampled negatives has as its mean. Every pair of
    anchor and candidate is visited, a few anchors at a time: memory is linear in A and M, time is
    not.

    Args:
        anchors: (A, D), divided by the temperature.
        candidates: (M, D).
        y: (M, E) query embeddings of the candidates.
        indices: (A,) which candidate each anchor is; it is never its own negative.

    Returns:
        (A,), -inf for an anchor without candidate; gradients to anchors and candidates.
    """
    if not len(indices):
        return (anchors.sum() + candidates.sum()) * 0 + anchors.new_zeros(0)
    return _LogMeanExponential.apply(anchors, candidates, l2_normalize(y), indices)


def _weighted_logits(
    anchors: Tensor, candidates: Tensor, y: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor]:
    """<anchor, candidate> + log s_deb of a tile (T, M), and the sum of its scores (T,)."""
    scores = _scores_of(y[indices] @ y.T, y.shape[1]).scatter_(1, indices[:, None], 0)
    total = scores.sum(1)
    return scores.log_().addmm_(anchors, candidates.T), total


def _at_a_time(device: torch.device) -> int:
    return MAX_ENTRIES if device.type == 'cpu' else GPU_FACTOR * MAX_ENTRIES


def _rows_at_a_time(candidates: Tensor) -> int:
    """Anchors that are compared with all candidates at a time."""
    return max(MIN_ROWS, _at_a_time(candidates.device) // max(1, len(candidates)))


def nt_xent(positive: Tensor, negative: Tensor) -> Tensor:
    """Mean over anchors of -log(exp(s+) / (exp(s+) + sum_r exp(s-_r))).

    Args:
        positive: (A,) s+, similarities already divided by the temperature; finite.
        negative: (A, R) s-; an entry of -inf is not a negative. An anchor without any negative
            loses 0, with gradient 0.

    Returns:
        Scalar; 0 (with a graph) for no anchors.
    """
    logits = torch.cat([positive[:, None], negative], dim=1)  # (A, 1+R)
    return (logits.logsumexp(1) - positive).sum() / max(1, len(positive))
