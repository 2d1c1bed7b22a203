"""Margin, false negatives and similarities on pixels whose truth is known."""

import pytest
import torch
from devices import DEVICES

from mmcast.models.losses.diagnostics import pixel_statistics

#: Two instances of two pixels, two pixels on none; the queries confuse pixel 1 with the second
#: instance.
INSTANCE = torch.tensor([0, 0, 1, 1, -1, -1])
Y = torch.eye(3)[[0, 1, 1, 1, 2, 2]]
PSEUDO = torch.tensor([False, False, True, True, True, True])


def statistics(weak, strong=None, y=Y, instance=INSTANCE, num_anchors=6, device='cpu'):
    strong = weak if strong is None else strong
    return pixel_statistics(
        *(part.to(device) for part in (weak, strong, y, instance, PSEUDO)),
        num_anchors,
        num_negatives=6000,
        generator=torch.Generator(device).manual_seed(0),
    )


@pytest.mark.parametrize('device', DEVICES)
def test_false_negatives_by_hand(device):
    """Pixel 0 draws 1 (false), 2, 3, 4, 5 alike: 1/5. 1 draws 0 (false), 4, 5: 1/3. 2 and 3: 0, 4,
    5.
    """
    found = statistics(torch.randn(6, 4), device=device)
    assert found['fnr_labeled'] == pytest.approx((1 / 5 + 1 / 3) / 2, abs=0.01)
    assert found['fnr_pseudo'] == 0
    assert found['fnr'] == pytest.approx((1 / 5 + 1 / 3) / 4, abs=0.01)
    assert found['no_negative'] == 0


def test_margin_and_similarities_by_hand():
    """Cosine of the views 0.6 everywhere; of instance 0 with everything else 0, of 1 with none -1,
    within 1.

    True negatives: pixel 0 draws 2, 3, 4, 5 (cosine 0), pixel 1 draws 4, 5 (0), pixels 2 and 3 draw
    0 (0) and 4, 5 (-1). Per draw of R: 4/5, 2/3, 1 and 1 of them count, so the mean is -(2/3 + 2/3)
    / (4/5 + 2/3 + 2).
    """
    weak = torch.tensor([[0.0, 1, 0], [0, 2, 0], [1, 0, 0], [3, 0, 0], [-1, 0, 0], [-5, 0, 0]])
    strong = torch.nn.functional.normalize(weak) * 0.6 + torch.tensor([0, 0, 0.8])
    found = statistics(weak, strong)
    assert found['positive'] == pytest.approx(0.6)
    assert found['margin'] == pytest.approx(0.6 + (4 / 3) / (4 / 5 + 2 / 3 + 2), abs=0.01)


def test_what_no_anchor_tells_is_left_out():
    found = statistics(torch.randn(6, 4), instance=torch.full((6,), -1))
    assert set(found) == {'positive', 'negative', 'no_negative'}
    found = statistics(torch.randn(6, 4), y=torch.ones(6, 3))
    assert set(found) == {'positive', 'no_negative'} and found['no_negative'] == 1


def test_anchors_without_a_negative_are_counted():
    """Of five pixels of one query and one of another all have negatives; alone in the batch, none
    has.
    """
    y = torch.eye(3)[[0, 0, 0, 0, 0, 0]]
    y[5] = 0  # knows nothing: it is a negative of all and has all
    assert statistics(torch.randn(6, 4), y=y)['no_negative'] == 0
    assert statistics(torch.randn(6, 4), y=torch.eye(3)[[0] * 6])['no_negative'] == 1
