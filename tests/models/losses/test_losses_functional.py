"""The pure functions of L_pxl against a slow reference, hand-computed numbers and statistics."""

import math

import contrastive_reference as reference
import pytest
import torch
from devices import DEVICES
from scipy.stats import chisquare

from mmcast.models.losses import functional
from mmcast.models.losses.functional import (
    debiased_scores,
    drawn_products,
    expected_negative,
    fuse_pixel_probabilities,
    l2_normalize,
    nt_xent,
    pair_products,
    sample_negatives,
)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- fuse_pixel_probabilities


@pytest.mark.parametrize('size', [(6, 8), (3, 4), (4, 3), (2, 5), (9, 12), (1, 1)])
def test_fuse_equals_loop_reference(size):
    mask_logits, class_logits = 3 * random(2, 3, 6, 8), 2 * random(2, 3, 4, seed=1)
    mask, expected_class = fuse_pixel_probabilities(mask_logits, class_logits, size, 0.5)
    want_mask, want_class = reference.fuse(mask_logits.tolist(), class_logits.tolist(), size, 0.5)
    torch.testing.assert_close(mask, torch.tensor(want_mask, dtype=torch.float64))
    torch.testing.assert_close(expected_class, torch.tensor(want_class, dtype=torch.float64))


def test_fuse_hand_computed():
    # One pixel, two queries. Mask logits (ln 3)/2 and 0 at temperature 1/2 are ln 3 and 0: P_m =
    # (3/4, 1/4). Class logits (ln 4, 0) and (0, 0): P_c = (4/5, 1/5) and (1/2, 1/2). F_c = 3/4
    # (4/5, 1/5) + 1/4 (1/2, 1/2) = (0.6 + 0.125, 0.15 + 0.125) = (0.725, 0.275).
    mask_logits = torch.tensor([math.log(3) / 2, 0.0]).view(1, 2, 1, 1)
    class_logits = torch.tensor([[[math.log(4), 0.0], [0.0, 0.0]]])
    mask, expected_class = fuse_pixel_probabilities(mask_logits, class_logits, (1, 1), 0.5)
    torch.testing.assert_close(mask.flatten(), torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(expected_class.flatten(), torch.tensor([0.725, 0.275]))


def test_fuse_averages_probabilities_and_uses_every_pixel():
    # 8 columns shrink to 1: the triangle has half-width 8 around 4, so column i weighs 1 - |i + 1/2
    # - 4| / 8, in sixteenths 9 11 13 15 15 13 11 9, together 96. Only the first column belongs to
    # query 0, so P_m = (9/96, 87/96). Logits of +-1000 would give 0 or 1 if they were averaged
    # before the softmax.
    belongs = torch.tensor([1.0, -1, -1, -1, -1, -1, -1, -1]).view(1, 1, 1, 8) * 1000
    mask_logits = torch.cat([belongs, -belongs], dim=1)
    mask, _ = fuse_pixel_probabilities(mask_logits, torch.zeros(1, 2, 2), (1, 1), 1.0)
    torch.testing.assert_close(mask.flatten(), torch.tensor([9 / 96, 87 / 96]))


@pytest.mark.parametrize('size', [(5, 7), (30, 31)])
def test_fuse_gives_distributions(size):
    mask, expected_class = fuse_pixel_probabilities(
        5 * random(2, 4, 12, 16), random(2, 4, 3), size, 0.5
    )
    assert mask.min() >= 0 and expected_class.min() >= 0
    torch.testing.assert_close(mask.sum(1), torch.ones(2, *size, dtype=torch.float64))
    torch.testing.assert_close(expected_class.sum(1), torch.ones(2, *size, dtype=torch.float64))


def test_fuse_without_queries():
    mask_logits, class_logits = torch.zeros(2, 0, 6, 8), torch.zeros(2, 0, 4)
    mask, expected_class = fuse_pixel_probabilities(mask_logits, class_logits, (3, 5), 0.5)
    assert mask.shape == (2, 0, 3, 5)
    assert expected_class.shape == (2, 4, 3, 5) and not expected_class.any()


# ---- debiased_scores


def test_scores_equal_loop_reference():
    a, b = (
        random(4, 5),
        random(6, 5, seed=1),
    )  # signs make some cosines negative, the score then exceeds 1
    want = [[reference.s_deb(x, y) for y in b.tolist()] for x in a.tolist()]
    torch.testing.assert_close(debiased_scores(a, b), torch.tensor(want, dtype=torch.float64))


def test_scores_hand_computed():
    # cos((3, 4), (4, 3)) = 24 / 25, so 0.04; with (4, -3) the product is 0, so 1; with itself 0, at
    # any length; the cosine with (-4, -3) is negative, the score exceeds 1; a zero vector scores 1.
    candidates = torch.tensor([[4.0, 3.0], [4.0, -3.0], [30.0, 40.0], [-4.0, -3.0], [0.0, 0.0]])
    scores = debiased_scores(torch.tensor([[3.0, 4.0]]), candidates)
    torch.testing.assert_close(scores, torch.tensor([[0.04, 1.0, 0.0, 1.96, 1.0]]))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_scores_of_equal_pixels_are_exactly_zero(dtype):
    lengths = torch.arange(1, 301, dtype=dtype)[:, None]
    y = random(1, 109, dtype=dtype).abs() * lengths
    assert not debiased_scores(y, y).any()


# ---- sample_negatives


def p_value(drawn, scores):
    """Chi-square of the drawn indices of one anchor against probabilities in proportion to
    ``scores``.
    """
    scores = torch.as_tensor(scores, dtype=torch.float64)
    counts = torch.bincount(drawn, minlength=len(scores)).double()
    possible = scores > 0
    assert not counts[~possible].any(), 'a pixel with score 0 was drawn'
    expected = scores[possible] / scores.sum() * counts.sum()
    assert expected.min() > 5, 'too few draws for a chi-square test'
    return chisquare(counts[possible].numpy(), expected.numpy()).pvalue


# How negatives are drawn depends on what is cheaper; these settings leave no choice.
WAYS = dict(
    rejection=dict(PRODUCTS_PER_PAIR=0.001),
    rejection_in_parts=dict(PRODUCTS_PER_PAIR=0.001, MAX_ENTRIES=50_000),  # two anchors a part
    all_scores=dict(PRODUCTS_PER_PAIR=math.inf),
    all_scores_in_parts=dict(PRODUCTS_PER_PAIR=math.inf, MAX_ENTRIES=20, MIN_ROWS=2),
)


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    for name, value in WAYS[request.param].items():
        monkeypatch.setattr(functional, name, value)
    return request.param


@pytest.mark.parametrize('device', DEVICES)
def test_draws_are_proportional_to_scores(way, device):
    y = random(9, 4).abs().to(device)
    y[5] = y[2]  # one instance: never negatives of each other
    drawn = sample_negatives(y, 20_000, generator=torch.Generator(device).manual_seed(1)).cpu()
    assert drawn.shape == (9, 20_000)
    for a, row in enumerate(y.tolist()):
        scores = [
            0.0 if a == m or {a, m} == {2, 5} else reference.s_deb(row, other)
            for m, other in enumerate(y.tolist())
        ]
        assert p_value(drawn[a], scores) > 1e-3


def test_draws_follow_scores_above_one(way):
    """Embeddings of any sign have scores up to 2, which no probability of acceptance can be."""
    y = random(9, 4)
    drawn = sample_negatives(y, 20_000, generator=torch.Generator().manual_seed(1))
    for a, row in enumerate(y.tolist()):
        scores = [
            0.0 if a == m else reference.s_deb(row, other) for m, other in enumerate(y.tolist())
        ]
        assert max(scores) > 1
        assert p_value(drawn[a], scores) > 1e-3


def test_draws_are_independent_of_each_other(way):
    """Pairs of successive draws of one anchor, 8 x 8 cells, are as frequent as the product says."""
    y = random(9, 4).abs()
    drawn = sample_negatives(
        y, 40_000, anchors=torch.tensor([0]), generator=torch.Generator().manual_seed(1)
    )
    scores = torch.tensor([0.0] + [reference.s_deb(y[0].tolist(), row) for row in y[1:].tolist()])
    pairs = drawn[0, ::2] * 9 + drawn[0, 1::2]
    assert p_value(pairs, torch.outer(scores, scores).flatten()) > 1e-3


def test_too_few_accepted_proposals_are_made_up_for(monkeypatch):
    """With a tenth of the proposals needed most draws come from all scores; the distribution is the
    same.
    """
    needed = functional._proposals_needed
    monkeypatch.setattr(functional, '_proposals_needed', lambda *args: (needed(*args) / 10).ceil())
    monkeypatch.setattr(functional, 'PRODUCTS_PER_PAIR', 0.001)
    y = random(9, 4).abs()
    drawn = sample_negatives(y, 20_000, generator=torch.Generator().manual_seed(1))
    for a, row in enumerate(y.tolist()):
        scores = [
            0.0 if a == m else reference.s_deb(row, other) for m, other in enumerate(y.tolist())
        ]
        assert p_value(drawn[a], scores) > 1e-3


def test_anchors_of_rare_and_of_frequent_negatives_in_one_call():
    """999 alike pixels have one negative among 1,000, the odd one has all: both draw what they
    must.
    """
    y = torch.eye(2)[[0] * 999 + [1]]
    drawn = sample_negatives(y, 10)
    assert drawn[:999].eq(999).all()
    assert drawn[999].ge(0).all() and drawn[999].lt(999).all()


def test_rare_negatives_of_many_pixels_keep_their_share():
    """Of 100,000 candidates 300 count, as 1 : 2 : 3; sums in float32 would lose such shares."""
    cosines = torch.tensor([0.97, 0.94, 0.91], dtype=torch.float64).repeat_interleave(100)
    others = torch.stack([cosines, (1 - cosines**2).sqrt()], dim=1)
    y = torch.cat(
        [torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(99_700, 2), others]
    ).float()
    drawn = sample_negatives(
        y, 60_000, anchors=torch.tensor([5]), generator=torch.Generator().manual_seed(0)
    )
    assert drawn.min() >= 99_700
    assert p_value((drawn[0] - 99_700) // 100, [1.0, 2.0, 3.0]) > 1e-3


def test_chi_square_would_notice_wrong_proportions():
    y = random(9, 4).abs()
    drawn = sample_negatives(
        y[:, :0], 20_000, generator=torch.Generator().manual_seed(1)
    )  # uniform
    scores = [
        reference.s_deb(y[0].tolist(), other) if m else 0.0 for m, other in enumerate(y.tolist())
    ]
    assert p_value(drawn[0], scores) < 1e-6


def test_draws_belong_to_the_given_anchors():
    y = torch.eye(3)[[0, 0, 1, 2]]
    drawn = sample_negatives(y, 500, anchors=torch.tensor([3, 0]))
    assert drawn.shape == (2, 500)
    assert set(drawn[0].tolist()) == {0, 1, 2}
    assert set(drawn[1].tolist()) == {2, 3}


def test_draws_repeat_with_the_generator():
    y = random(9, 4).abs()
    first, again, other = (
        sample_negatives(y, 20, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_rows_without_candidate_are_marked(way):
    one_instance, alone = torch.ones(4, 3), torch.ones(1, 3)
    assert sample_negatives(one_instance, 5).eq(-1).all()
    assert sample_negatives(alone, 5).tolist() == [[-1] * 5]
    assert sample_negatives(torch.eye(2), 5).tolist() == [[1] * 5, [0] * 5]
    assert sample_negatives(torch.eye(2), 5, anchors=torch.zeros(0, dtype=torch.long)).shape == (
        0,
        5,
    )


# ---- drawn_products and expected_negative


def leaves(*tensors):
    return [tensor.clone().requires_grad_() for tensor in tensors]


@pytest.fixture(params=[dict(), dict(MAX_ENTRIES=8, MIN_ROWS=2)], ids=['whole', 'in parts'])
def tiles(request, monkeypatch):
    for name, value in request.param.items():
        monkeypatch.setattr(functional, name, value)


@pytest.mark.parametrize('device', DEVICES)
def test_drawn_products_and_their_gradients_equal_a_matrix_product(tiles, device):
    anchors, candidates = leaves(random(5, 6).to(device), random(9, 6, seed=1).to(device))
    drawn = torch.randint(9, (5, 4), generator=torch.Generator().manual_seed(0)).to(device)
    weights = random(5, 4, seed=2).to(device)
    gradients = []
    for products in (
        drawn_products(anchors, candidates, drawn),
        (anchors @ candidates.T).gather(1, drawn),
    ):
        gradients.append(
            (products, *torch.autograd.grad((products * weights).sum(), [anchors, candidates]))
        )
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs)


def test_drawn_products_gradcheck(tiles):
    drawn = torch.randint(9, (5, 4), generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(
        lambda a, c: drawn_products(a, c, drawn), leaves(random(5, 6), random(9, 6, seed=1))
    )


def test_drawn_products_of_no_anchor():
    anchors, candidates = leaves(random(0, 6), random(9, 6))
    products = drawn_products(anchors, candidates, torch.zeros(0, 4, dtype=torch.long))
    assert products.shape == (0, 4)
    products.sum().backward()
    assert not candidates.grad.any()


def test_pairs_of_lists_of_different_length():
    # Anchor 0 with candidates 1 and 0, anchor 1 with none, anchor 2 with candidate 1.
    anchors, candidates = (
        torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]]),
        torch.tensor([[1.0, 1.0], [2.0, 5.0]]),
    )
    products = pair_products(anchors, candidates, torch.tensor([1, 0, 1]), torch.tensor([0, 2, 2]))
    assert products.tolist() == [12.0, 3.0, 6.0]


def expected_reference(anchors, candidates, y, indices):
    """One anchor at a time, from the definition."""
    rows = []
    for anchor, i in zip(anchors, indices.tolist()):
        scores = torch.tensor(
            [
                0.0 if m == i else reference.s_deb(y[i].tolist(), y[m].tolist())
                for m in range(len(y))
            ],
            dtype=anchors.dtype,
            device=anchors.device,
        )
        rows.append(((scores / scores.sum()) * (candidates @ anchor).exp()).sum().log())
    return torch.stack(rows)


@pytest.mark.parametrize('device', DEVICES)
def test_expected_negative_and_its_gradients_equal_the_definition(tiles, device):
    anchors, candidates = leaves(random(5, 6).to(device), random(9, 6, seed=1).to(device))
    y, indices, weights = (
        random(9, 4, seed=2).abs().to(device),
        torch.tensor([8, 0, 3, 3, 5], device=device),
        random(5, seed=3).to(device),
    )
    results = []
    for function in (expected_negative, expected_reference):
        value = function(anchors, candidates, y, indices)
        results.append(
            (value, *torch.autograd.grad((value * weights).sum(), [anchors, candidates]))
        )
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs)


def test_expected_negative_gradcheck(tiles):
    y, indices = random(9, 4, seed=2).abs(), torch.tensor([8, 0, 3, 3, 5])
    assert torch.autograd.gradcheck(
        lambda a, c: expected_negative(a, c, y, indices), leaves(random(5, 6), random(9, 6, seed=1))
    )


def test_expected_negative_by_hand():
    # Anchor 0 = (1, 0) against candidates (0, ln 2) and (ln 4, 0), scores 1 and 1/2 by the
    # embeddings (1, 0), (0, 1) and (1/2, sqrt(3)/2): (1 * e^0 + 1/2 * 4) / (3/2) = 2.
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, math.sqrt(0.75)]])
    candidates = torch.tensor([[9.0, 9.0], [0.0, math.log(2)], [math.log(4), 0.0]])
    value = expected_negative(torch.tensor([[1.0, 0.0]]), candidates, y, torch.tensor([0]))
    assert value.item() == pytest.approx(math.log(2), rel=1e-6)


def test_expected_negative_of_an_anchor_without_candidates_has_no_gradient():
    anchors, candidates = leaves(random(2, 3), random(2, 3))
    value = expected_negative(anchors, candidates, torch.ones(2, 4).double(), torch.arange(2))
    assert value.isneginf().all()
    nt_xent(anchors[:, 0], value[:, None]).backward()
    assert not anchors.grad.any() and not candidates.grad.any()


def test_expected_negative_survives_large_logits():
    anchors, candidates, y = 1e4 * random(4, 3), random(6, 3, seed=1), random(6, 4, seed=2).abs()
    assert expected_negative(anchors, candidates, y, torch.arange(4)).isfinite().all()


# ---- nt_xent


def test_nt_xent_equals_loop_reference():
    positive, negative = 4 * random(5), 4 * random(5, 7, seed=1)
    want = reference.nt_xent(positive.tolist(), negative.tolist())
    assert nt_xent(positive, negative).item() == pytest.approx(want, rel=1e-12)


def test_nt_xent_hand_computed():
    # Anchor 1: s+ = ln 2, negatives ln 1 and ln 3: -ln(2 / (2 + 1 + 3)) = ln 3.
    # Anchor 2: s+ = 0, negatives 0 and none: -ln(1 / 2) = ln 2. Mean: ln(6) / 2.
    positive = torch.tensor([math.log(2), 0.0])
    negative = torch.tensor([[0.0, math.log(3)], [0.0, -math.inf]])
    assert nt_xent(positive, negative).item() == pytest.approx(math.log(6) / 2)


def test_nt_xent_survives_large_logits():
    # The exponential of 1000 overflows even in float64; the loss is ln(1 + e^0) with equal logits.
    loss = nt_xent(torch.tensor([1000.0]), torch.tensor([[1000.0]])).item()
    assert loss == pytest.approx(math.log(2), rel=1e-4)


def test_nt_xent_without_negatives_or_anchors_is_zero_with_zero_gradient():
    positive = torch.tensor([0.3, -2.0], requires_grad=True)
    for negative in (torch.full((2, 3), -math.inf), torch.zeros(2, 0)):
        loss = nt_xent(positive, negative)
        assert loss.item() == 0
        assert torch.autograd.grad(loss, positive)[0].tolist() == [0.0, 0.0]
    empty = nt_xent(positive[:0], torch.zeros(0, 3))
    assert empty.item() == 0 and empty.requires_grad


def test_nt_xent_gradcheck():
    positive, negative = random(4).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(nt_xent, (positive, negative))


# ---- l2_normalize


def test_normalize_of_zero_vector_has_zero_gradient():
    vectors = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    unit = l2_normalize(vectors)
    torch.testing.assert_close(unit, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
    unit.sum().backward()
    # d(x + y)/|v| at (3, 4): (1 - 0.6 * 1.4, 1 - 0.8 * 1.4) / 5 = (0.032, -0.024).
    torch.testing.assert_close(vectors.grad, torch.tensor([[0.0, 0.0], [0.032, -0.024]]))
