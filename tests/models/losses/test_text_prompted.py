"""SAM3's losses against loops over layers, pairs, queries and targets, and matchings that were all
tried.
"""

import itertools
import math

import pytest
import torch
from devices import DEVICES

from mmcast.models.losses.text_prompted import match_queries, query_losses

LAYERS, QUERIES = 2, 5
WEIGHTS = dict(cls=2, bbox=5, giou=2)  # of the matching


def example(counts, seed=0, device='cpu'):
    """Logits, boxes, presence and targets of as many pairs as there are counts."""
    torch.manual_seed(seed)
    shape = (LAYERS, len(counts), QUERIES)
    logits = torch.randn(shape, dtype=torch.float64)
    boxes = torch.rand((*shape, 4), dtype=torch.float64) * 0.4 + 0.2
    presence = torch.randn(shape[:2], dtype=torch.float64)
    targets = [torch.rand((count, 4), dtype=torch.float64) * 0.4 + 0.2 for count in counts]
    leaves = (part.detach().to(device).requires_grad_() for part in (logits, boxes, presence))
    return *leaves, [each.to(device) for each in targets]


def corners(box):
    x, y, w, h = (float(value) for value in box)
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def iou_and_giou(one, other):
    a, b = corners(one), corners(other)
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    union = sum(areas) - width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    iou = width * height / union
    return iou, iou - (hull - union) / hull


def sigmoid(x):
    return 1 / (1 + math.exp(-float(x)))


def cost(logit, box, target):
    p = sigmoid(logit)
    cls = -0.25 * (1 - p) ** 2 * math.log(p) + 0.75 * p**2 * math.log(1 - p)
    l1 = sum(abs(float(a) - float(b)) for a, b in zip(box, target))
    return (
        WEIGHTS['cls'] * cls + WEIGHTS['bbox'] * l1 - WEIGHTS['giou'] * iou_and_giou(box, target)[1]
    )


def best_matching(logits, boxes, targets):
    """By target: the query of the cheapest choice of all."""
    choices = itertools.permutations(range(QUERIES), len(targets))
    return min(
        choices,
        key=lambda queries: sum(
            cost(logits[q], boxes[q], target) for q, target in zip(queries, targets)
        ),
    )


def reference(logits, boxes, presence, targets, num_pairs, num_targets):
    result = dict(cls=[], presence=[], bbox=[], iou=[])
    for layer in range(LAYERS):
        sums = dict.fromkeys(result, 0.0)
        for pair, of_pair in enumerate(targets):
            x = sigmoid(presence[layer, pair])
            sums['presence'] -= 0.5 * math.log(x if len(of_pair) else 1 - x)
            if not len(of_pair):
                continue
            matching = best_matching(logits[layer, pair], boxes[layer, pair], of_pair)
            for query in range(QUERIES):
                p = sigmoid(logits[layer, pair, query])
                if query not in matching:
                    sums['cls'] -= p**2 * math.log(1 - p)
                    continue
                box, target = boxes[layer, pair, query], of_pair[matching.index(query)]
                iou, giou = iou_and_giou(box, target)
                goal = max(0.01, p**0.25 * iou**0.75)
                sums['cls'] -= 10 * (goal * math.log(p) + (1 - goal) * math.log(1 - p))
                sums['bbox'] += sum(abs(float(a) - float(b)) for a, b in zip(box, target))
                sums['iou'] += 1 - giou
        result['cls'].append(sums['cls'] / (num_pairs * QUERIES))
        result['presence'].append(sums['presence'] / num_pairs)
        result['bbox'].append(sums['bbox'] / num_targets)
        result['iou'].append(sums['iou'] / num_targets)
    return result


def losses_of(case, num_pairs=3.0, num_targets=4.0):
    logits, boxes, presence, targets = case
    matches = match_queries(logits, boxes, targets)
    normalisers = (logits.new_tensor(value) for value in (num_pairs, num_targets))
    return query_losses(logits, boxes, presence, targets, matches, *normalisers), matches


@pytest.mark.parametrize('counts', [[2, 0, 3], [1], [0, 0], [5, 1]], ids=str)
@pytest.mark.parametrize('seed', range(2))
@pytest.mark.parametrize('device', DEVICES)
def test_losses_are_those_of_a_loop(counts, seed, device):
    case = example(counts, seed, device)
    losses, matches = losses_of(case)
    expected = reference(*(part.detach() for part in case[:3]), case[3], 3.0, 4.0)
    for name, values in expected.items():
        assert losses[name].tolist() == pytest.approx(values, rel=1e-5, abs=1e-9), name
    assert len(matches.layers) == LAYERS * sum(counts)
    sum(loss.sum() for loss in losses.values()).backward()
    assert all(part.grad.isfinite().all() for part in case[:3])


def test_more_targets_than_queries_leave_the_worst_out():
    logits, boxes, presence, targets = example([QUERIES + 2])
    matches = match_queries(logits, boxes, targets)
    assert sorted(matches.of_layer(1).queries.tolist()) == list(range(QUERIES))
    assert len(set(matches.of_layer(1).targets.tolist())) == QUERIES
    assert losses_of((logits, boxes, presence, targets))[0]['bbox'].isfinite().all()


def test_no_pair_at_all_leaves_zeros_with_a_graph():
    logits, boxes, presence, _ = example([1])
    losses, _ = losses_of((logits[:, :0], boxes[:, :0], presence[:, :0], []))
    assert all(loss.tolist() == [0.0] * LAYERS and loss.requires_grad for loss in losses.values())
    sum(loss.sum() for loss in losses.values()).backward()
    assert all(part.grad is not None and not part.grad.any() for part in (logits, boxes, presence))


def test_the_goal_of_a_matched_query_has_no_gradient():
    """It is a number: the gradient is that of the cross entropy alone, 10 (p - goal) / (P Q)."""
    case = example([1])
    losses, matches = losses_of(case, num_pairs=1.0)
    losses['cls'][1].backward()
    query = int(matches.of_layer(1).queries)
    p = sigmoid(case[0][1, 0, query].detach())
    iou = iou_and_giou(case[1][1, 0, query].detach(), case[3][0][0])[0]
    expected = 10 * (p - max(0.01, p**0.25 * iou**0.75)) / QUERIES
    assert case[0].grad[1, 0, query].item() == pytest.approx(expected, rel=1e-5)
