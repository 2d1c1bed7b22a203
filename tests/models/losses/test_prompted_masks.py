"""SAM2's mask losses against values by hand and a slow reference."""

import math

import pytest
import torch

from mmcast.models.losses.prompted_masks import prompted_mask_losses


def test_by_hand():
    """Logits 0: p = 1/2; half of four pixels belong to the object, nothing is predicted above 0."""
    target = torch.tensor([[[1, 1], [0, 0]]])
    focal, dice, quality = prompted_mask_losses(torch.zeros(1, 2, 2), torch.tensor([0.3]), target)
    # -(1/4)(1/2)^2 log(1/2) on the object, 3/4 outside.
    assert focal.item() == pytest.approx((0.25 + 0.75) / 2 * 0.25 * math.log(2))
    assert dice.item() == pytest.approx(1 - (2 * 1 + 1) / (2 + 2 + 1))
    assert quality.item() == pytest.approx(0.3)


def test_a_perfect_mask_costs_nothing_but_a_wrong_estimate():
    target = torch.zeros(2, 8, 8)
    target[0, 2:5, 3:7] = 1
    target[1, :, :2] = 1
    focal, dice, quality = prompted_mask_losses(target * 40 - 20, torch.tensor([1.0, 0.6]), target)
    assert focal < 1e-6 and dice < 1e-5 and quality.item() == pytest.approx(0.4)


def test_against_a_loop_over_pixels():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 6, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 2, (3, 5, 6), generator=generator)
    focal, dice, quality = prompted_mask_losses(logits, torch.tensor([0.2, 0.5, 0.9]), target)
    expected = [0.0, 0.0, 0.0]
    for mask, truth, estimate in zip(logits.tolist(), target.tolist(), (0.2, 0.5, 0.9)):
        pairs = [
            (1 / (1 + math.exp(-x)), y) for row, line in zip(mask, truth) for x, y in zip(row, line)
        ]
        expected[0] += sum(
            -(0.25 if y else 0.75) * (1 - (p if y else 1 - p)) ** 2 * math.log(p if y else 1 - p)
            for p, y in pairs
        ) / len(pairs)
        expected[1] += 1 - (2 * sum(p * y for p, y in pairs) + 1) / (
            sum(p + y for p, y in pairs) + 1
        )
        found = [p > 0.5 for p, _ in pairs]
        both = sum(f and y for f, (_, y) in zip(found, pairs))
        expected[2] += abs(estimate - both / sum(f or y for f, (_, y) in zip(found, pairs)))
    for value, reference in zip((focal, dice, quality), expected):
        assert value.item() == pytest.approx(reference, rel=1e-5)


def test_confidence_weights_the_pixels_of_the_focal_loss_alone():
    generator = torch.Generator().manual_seed(0)
    logits, quality = torch.randn(3, 4, 6, generator=generator), torch.rand(3, generator=generator)
    target = torch.randint(0, 2, (3, 4, 6), generator=generator)
    left = torch.zeros(4, 6)
    left[:, :3] = 1
    plain, on_left, on_right = (
        prompted_mask_losses(logits, quality, target, weights) for weights in (None, left, 1 - left)
    )
    assert plain[0].item() == pytest.approx((on_left[0] + on_right[0]).item())
    half = prompted_mask_losses(logits[..., :3], quality, target[..., :3])
    assert on_left[0].item() == pytest.approx(half[0].item() / 2)
    assert plain[1:] == on_left[1:]


def test_masks_are_enlarged_to_the_target():
    """A left half at 4x4 is one at 16x16, but for the border between."""
    logits = torch.full((1, 4, 4), -30.0)
    logits[..., :2] = 30
    target = torch.zeros(1, 16, 16)
    target[..., :8] = 1
    assert prompted_mask_losses(logits, torch.tensor([1.0]), target)[2] < 1e-6
