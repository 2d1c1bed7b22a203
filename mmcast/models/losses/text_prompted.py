"""SAM3's training losses for queries prompted by texts.

Source: facebookresearch/sam3 at commit 99d02f2 (27 January 2026),
``train/configs/roboflow_v100/roboflow_v100_full_ft_100_images.yaml``, its matcher
``BinaryHungarianMatcherV2`` and its losses ``IABCEMdetr`` and ``Boxes``. A pair is an image and a
text that it is asked for; its targets are the image's objects of the text's class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from scipy.optimize import linear_sum_assignment
from torch import Tensor

#: Of the matching costs.
COSTS = dict(cls=2.0, bbox=5.0, iou=2.0)
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0  # of the matching cost
#: A matched query is to score its probability to this power, times its IoU to the rest of one.
SCORE_POWER = 0.25
LEAST_TARGET = 0.01
POSITIVE_WEIGHT = 10.0  # of matched queries against the others
NEGATIVE_GAMMA = 2.0
PRESENCE_BALANCE = 0.5  # the focal loss of presence has alpha 0.5 and gamma 0


@dataclass
class Matches:
    """Which query of which decoder layer is matched with which target; each (M,), int64.

    Attributes:
        layers: Decoder layers.
        pairs: Pairs of image and text.
        queries: Queries.
        targets: Targets, counted over all pairs.
    """

    layers: Tensor
    pairs: Tensor
    queries: Tensor
    targets: Tensor

    def of_layer(self, layer: int) -> 'Matches':
        """Those of one decoder layer."""
        return Matches(
            *(
                part[self.layers == layer]
                for part in (self.layers, self.pairs, self.queries, self.targets)
            )
        )


@torch.no_grad()
def match_queries(logits: Tensor, boxes: Tensor, targets: Sequence[Tensor]) -> Matches:
    """The Hungarian matching of every layer and pair by itself.

    Args:
        logits: (L, P, Q).
        boxes: (L, P, Q, 4) as cx, cy, w, h in 0..1.
        targets: Of P pairs, each (n, 4), the same.
    """
    layers, _, queries = logits.shape
    costs = [
        _cost(logits[:, pair], boxes[:, pair], of_pair).flatten()
        for pair, of_pair in enumerate(targets)
    ]
    flat = torch.cat([logits.new_zeros(0), *costs]).cpu().numpy()  # one transfer for all
    matched, begin, first = [np.zeros((4, 0), np.int64)], 0, 0
    for pair, count in enumerate(map(len, targets)):
        end = begin + layers * queries * count
        for layer, cost in enumerate(flat[begin:end].reshape(layers, queries, count)):
            rows, columns = linear_sum_assignment(cost)
            matched.append(
                np.stack(
                    [np.full_like(rows, layer), np.full_like(rows, pair), rows, columns + first]
                )
            )
        begin, first = end, first + count
    return Matches(*torch.from_numpy(np.concatenate(matched, axis=1)).to(logits.device))


def _cost(logits: Tensor, boxes: Tensor, targets: Tensor) -> Tensor:
    """(L, Q, n) of one pair, from logits (L, Q), boxes (L, Q, 4) and targets (n, 4)."""
    probability = logits.sigmoid()
    positive = FOCAL_ALPHA * (1 - probability) ** FOCAL_GAMMA * F.logsigmoid(logits)
    negative = (1 - FOCAL_ALPHA) * probability**FOCAL_GAMMA * F.logsigmoid(-logits)
    distance = torch.cdist(boxes.flatten(0, 1), targets, p=1).unflatten(0, logits.shape)
    iou = bbox_overlaps(
        bbox_cxcywh_to_xyxy(boxes.flatten(0, 1)), bbox_cxcywh_to_xyxy(targets), mode='giou'
    ).unflatten(0, logits.shape)
    return (
        COSTS['cls'] * (negative - positive)[..., None]
        + COSTS['bbox'] * distance
        - COSTS['iou'] * iou
    )


def query_losses(
    logits: Tensor,
    boxes: Tensor,
    presence: Tensor,
    targets: Sequence[Tensor],
    matches: Matches,
    num_pairs: Tensor,
    num_targets: Tensor,
) -> dict[str, Tensor]:
    """The unweighted losses of every decoder layer.

    Args:
        logits: (L, P, Q).
        boxes: (L, P, Q, 4) as cx, cy, w, h in 0..1.
        presence: (L, P), logits.
        targets: Of P pairs, each (n, 4), the same.
        matches: Of :func:`match_queries`.
        num_pairs: Normaliser of ``cls`` and ``presence``, P averaged over ranks.
        num_targets: That of ``bbox`` and ``iou``, the number of targets averaged over ranks.

    Returns:
        ``cls``, ``presence``, ``bbox`` (L1) and ``iou`` (GIoU), each (L,). A pair without targets
        counts for ``presence`` alone.
    """
    at = matches.layers, matches.pairs, matches.queries
    found, wanted = boxes[at], torch.cat([boxes.new_zeros((0, 4)), *targets])[matches.targets]
    corners = bbox_cxcywh_to_xyxy(found), bbox_cxcywh_to_xyxy(wanted)
    present = logits.new_tensor([float(len(each) > 0) for each in targets])
    goals = torch.zeros_like(logits)
    with torch.no_grad():
        iou = bbox_overlaps(*corners, is_aligned=True).clamp(0, 1)
        goals[at] = (logits[at].sigmoid() ** SCORE_POWER * iou ** (1 - SCORE_POWER)).clamp(
            min=LEAST_TARGET
        )
    is_matched = goals > 0
    of_query = torch.where(
        is_matched,
        POSITIVE_WEIGHT * F.binary_cross_entropy_with_logits(logits, goals, reduction='none'),
        F.softplus(logits) * logits.sigmoid() ** NEGATIVE_GAMMA,
    )
    of_presence = PRESENCE_BALANCE * F.binary_cross_entropy_with_logits(
        presence, present.expand_as(presence), reduction='none'
    )

    def by_layer(losses: Tensor) -> Tensor:
        return logits.new_zeros(len(logits)).index_add(0, matches.layers, losses)

    overlap = bbox_overlaps(*corners, mode='giou', is_aligned=True)
    return dict(
        cls=(of_query * present[:, None]).sum((1, 2)) / (num_pairs * logits.shape[2]),
        presence=of_presence.sum(1) / num_pairs,
        bbox=by_layer((found - wanted).abs().sum(1)) / num_targets,
        # mmdet's overlap of nothing has no graph.
        iou=by_layer(1 - overlap + 0 * found.sum(1)) / num_targets,
    )
