"""PixelContrastiveLoss: the whole formula, who gets gradients, precision, degenerate inputs,
options.
"""

import math

import contrastive_reference as reference
import pytest
import torch
from devices import DEVICES
from scipy.stats import chisquare

from mmcast.errors import CASTError
from mmcast.models.losses import pixel_contrastive_loss
from mmcast.models.losses.pixel_contrastive_loss import PixelContrastiveLoss
from mmcast.registry import MODELS

MODES = ('uniform', 'mask', 'class', 'fusion')


def make_inputs(B=2, D=3, h=2, w=3, K=3, H=4, W=6, C=2, dtype=torch.float64, seed=0, device='cpu'):
    generator = torch.Generator().manual_seed(seed)
    shapes = dict(
        z_weak=(B, D, h, w),
        z_strong=(B, D, h, w),
        mask_logits=(B, K, H, W),
        class_logits=(B, K, C + 1),
    )
    return {
        name: torch.randn(shape, generator=generator, dtype=dtype).to(device).requires_grad_()
        for name, shape in shapes.items()
    }


@pytest.fixture
def draws(monkeypatch):
    """What sample_negatives returned, call by call."""
    recorded = []
    real = pixel_contrastive_loss.sample_negatives

    def record(*args, **kwargs):
        recorded.append(real(*args, **kwargs))
        return recorded[-1]

    monkeypatch.setattr(pixel_contrastive_loss, 'sample_negatives', record)
    return recorded


# ---- the formula


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('sampling', MODES)
@pytest.mark.parametrize('progress', [0.0, 0.4, 1.0])
def test_loss_equals_loop_reference(draws, sampling, progress, device):
    inputs = make_inputs(device=device)
    loss = PixelContrastiveLoss(num_negatives=5, sampling=sampling)(**inputs, progress=progress)
    temperature = 0.3 + progress * (0.07 - 0.3)
    want = reference.whole_loss(
        inputs['z_weak'].tolist(), inputs['z_strong'].tolist(), draws[0].tolist(), temperature
    )
    assert loss.item() == pytest.approx(want, rel=1e-10)


def test_loss_hand_computed():
    # Two images of one pixel, each in a query of its own: each is the negative of the other, R = 2
    # times. z_weak = (1, 0) and (0, 2) -> (0, 1); z_strong = (3, 4) -> (0.6, 0.8) and (0, 1); T =
    # 0.5. s+ = 1.2 and 2, s- = 0: ln(1 + 2 e^-1.2) = 0.471495, ln(1 + 2 e^-2) = 0.239545, mean
    # 0.355520.
    z_weak = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).view(2, 2, 1, 1)
    z_strong = torch.tensor([[3.0, 4.0], [0.0, 1.0]]).view(2, 2, 1, 1)
    mask_logits = torch.tensor([[9.0, -9.0], [-9.0, 9.0]]).view(2, 2, 1, 1)
    loss = PixelContrastiveLoss(num_negatives=2, temperature=0.5)
    value = loss(z_weak, z_strong, mask_logits, torch.zeros(2, 2, 3)).item()
    assert value == pytest.approx(0.355520, abs=1e-6)


@pytest.mark.parametrize('sampling', MODES)
def test_negatives_are_drawn_in_proportion_to_s_deb(draws, sampling):
    inputs = make_inputs()
    torch.manual_seed(2)
    PixelContrastiveLoss(num_negatives=20_000, sampling=sampling)(**inputs)
    logits = inputs['mask_logits'].tolist(), inputs['class_logits'].tolist()
    y = reference.query_embeddings(*logits, (2, 3), 0.5, sampling)
    own_image = torch.arange(12) < 6
    for a in range(12):
        scores = torch.tensor([0.0 if a == m else reference.s_deb(y[a], y[m]) for m in range(12)])
        counts = torch.bincount(draws[0][a], minlength=12).double()
        assert counts[a] == 0
        others = scores > 0
        own = own_image if a < 6 else ~own_image
        # Over the whole batch, then within the own image and across images by themselves.
        for group in (others, others & own, others & ~own):
            expected = scores[group].double() / scores[group].sum() * counts[group].sum()
            assert chisquare(counts[group].numpy(), expected.numpy(), sum_check=False).pvalue > 1e-4


@pytest.mark.parametrize('anchors', [dict(), dict(num_anchors=5)], ids=['all', 'part'])
def test_what_a_call_will_sample_can_be_seen_before(draws, anchors):
    inputs = make_inputs()
    loss = PixelContrastiveLoss(num_negatives=7, **anchors)
    torch.manual_seed(4)
    seen = loss.sample_pixels(inputs['mask_logits'], inputs['class_logits'], (2, 3))
    torch.manual_seed(4)
    loss(**inputs)
    assert len(draws) == 2
    assert torch.equal(seen.negatives, draws[1])
    assert len(seen.negatives) == anchors.get('num_anchors', 12)
    assert (seen.anchors is None) == (not anchors)


def test_the_expected_form_samples_no_negatives(draws):
    inputs = make_inputs()
    loss = PixelContrastiveLoss(negatives='expected')
    logits = inputs['mask_logits'], inputs['class_logits']
    assert loss.sample_pixels(*logits, (2, 3)).negatives is None
    assert not draws


def test_all_pixels_of_an_instance_repel_the_other_one_only(draws):
    # Left half query 0, right half query 1, one class: with masks the two instances are told apart.
    side = torch.tensor([1.0, 1.0, -1.0, -1.0]).expand(1, 1, 4, 4) * 20
    z = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    PixelContrastiveLoss(sampling='fusion')(
        z, z, torch.cat([side, -side], dim=1), torch.zeros(1, 2, 2)
    )
    column = torch.arange(16) % 4
    assert ((column[draws[0]] < 2) != (column < 2)[:, None]).all()


def test_loss_gradcheck(monkeypatch):
    fixed = torch.randint(12, (12, 4), generator=torch.Generator().manual_seed(0))
    fixed[3] = -1  # an anchor without negatives
    monkeypatch.setattr(pixel_contrastive_loss, 'sample_negatives', lambda *args: fixed.clone())
    inputs = make_inputs()
    loss = PixelContrastiveLoss()

    def of_embeddings(z_weak, z_strong):
        return loss(z_weak, z_strong, inputs['mask_logits'], inputs['class_logits'], 0.5)

    assert torch.autograd.gradcheck(of_embeddings, (inputs['z_weak'], inputs['z_strong']))


# ---- gradients


@pytest.mark.parametrize('sampling', MODES)
def test_gradient_reaches_both_embeddings_and_no_query(sampling):
    inputs = make_inputs()
    PixelContrastiveLoss(num_negatives=5, sampling=sampling)(**inputs).backward()
    assert inputs['z_weak'].grad.abs().sum() > 0 and inputs['z_strong'].grad.abs().sum() > 0
    assert inputs['mask_logits'].grad is None and inputs['class_logits'].grad is None


def test_gradient_of_z_strong_is_of_the_positive_term_only():
    # d loss / d strong_p points along -weak_p (in the tangent plane): a step against it raises the
    # similarity.
    inputs = make_inputs()
    PixelContrastiveLoss(num_negatives=5)(**inputs).backward()
    weak, strong = inputs['z_weak'].detach(), inputs['z_strong'].detach()
    step = strong - 1e-3 * inputs['z_strong'].grad
    before = torch.cosine_similarity(weak, strong, dim=1)
    assert (torch.cosine_similarity(weak, step, dim=1) > before).all()


def test_zero_embeddings_keep_everything_finite():
    inputs = make_inputs()
    with torch.no_grad():
        inputs['z_weak'][0, :, 0, 0] = 0
        inputs['z_strong'][1] = 0
    loss = PixelContrastiveLoss(num_negatives=5)(**inputs)
    loss.backward()
    assert loss.isfinite()
    assert inputs['z_weak'].grad.abs().max() < 1e3 and not inputs['z_strong'].grad[1].any()


# ---- precision


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_autocast_computes_in_float32(monkeypatch, dtype, tolerance):
    # Only the rounding of the inputs may cost precision: bfloat16 products would miss 1e-6 by far.
    fixed = torch.randint(32, (32, 50), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(pixel_contrastive_loss, 'sample_negatives', lambda *args: fixed)
    inputs = make_inputs(B=2, D=16, h=4, w=4)
    loss = PixelContrastiveLoss(num_negatives=50)
    exact = loss(**inputs).item()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mixed = loss(**{name: tensor.to(dtype) for name, tensor in inputs.items()})
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(exact, rel=tolerance)


@pytest.mark.parametrize('sampling', ['mask', 'class', 'fusion'])
def test_autocast_draws_the_same_negatives(draws, sampling):
    inputs = make_inputs(dtype=torch.float32)
    loss = PixelContrastiveLoss(num_negatives=200, sampling=sampling)
    torch.manual_seed(0)
    loss(**inputs)
    torch.manual_seed(0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss(**inputs)
    assert torch.equal(*draws)


# ---- empty and degenerate


def assert_zero_with_zero_gradient(inputs, **options):
    loss = PixelContrastiveLoss(num_negatives=5, **options)(**inputs)
    loss.backward()
    assert loss.item() == 0
    for name in ('z_weak', 'z_strong'):
        assert inputs[name].grad.eq(0).all()


@pytest.mark.parametrize('sampling', MODES)
@pytest.mark.parametrize('negatives', ['drawn', 'expected'])
def test_a_single_pixel_loses_zero(sampling, negatives):
    assert_zero_with_zero_gradient(
        make_inputs(B=1, h=1, w=1), sampling=sampling, negatives=negatives
    )


@pytest.mark.parametrize('sampling', ['mask', 'class', 'fusion'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('negatives', ['drawn', 'expected'])
def test_pixels_all_alike_lose_zero(sampling, dtype, negatives):
    inputs = make_inputs(dtype=dtype)
    inputs['mask_logits'] = (
        torch.tensor([0.3, -1.0, 2.0], dtype=dtype).view(1, 3, 1, 1).expand(2, 3, 4, 6)
    )
    inputs['class_logits'] = inputs['class_logits'][:1].expand(2, 3, 3)
    assert_zero_with_zero_gradient(inputs, sampling=sampling, negatives=negatives)


def test_one_query_leaves_nothing_to_compare():
    assert_zero_with_zero_gradient(make_inputs(B=1, K=1))


@pytest.mark.parametrize('sampling', MODES)
def test_no_query_samples_uniformly(draws, sampling):
    inputs = make_inputs(K=0)
    loss = PixelContrastiveLoss(num_negatives=2_000, sampling=sampling)(**inputs)
    loss.backward()
    assert loss.item() > 0 and inputs['z_weak'].grad.isfinite().all()
    for a, row in enumerate(draws[0]):
        assert sorted(set(row.tolist())) == [m for m in range(12) if m != a]


def test_one_anchor_without_negatives_loses_zero_among_others(monkeypatch):
    inputs = make_inputs()
    drawn = torch.randint(12, (12, 4), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(pixel_contrastive_loss, 'sample_negatives', lambda *args: drawn)
    drawn[7] = -1
    want = [row if row[0] >= 0 else [] for row in drawn.tolist()]
    want = reference.whole_loss(inputs['z_weak'].tolist(), inputs['z_strong'].tolist(), want, 0.3)
    assert PixelContrastiveLoss()(**inputs).item() == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize('change', [dict(B=1), dict(C=1), dict(C=0), dict(K=1)])
def test_one_image_one_class_or_one_query_is_finite(change):
    inputs = make_inputs(**change)
    loss = PixelContrastiveLoss(num_negatives=5)(**inputs)
    loss.backward()
    assert loss.isfinite() and loss >= 0 and inputs['z_weak'].grad.isfinite().all()


# ---- errors


@pytest.mark.parametrize('name', ['z_weak', 'z_strong', 'mask_logits', 'class_logits'])
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_non_finite_input_is_named_with_its_image(name, value):
    inputs = make_inputs(B=3)
    with torch.no_grad():
        inputs[name][1].view(-1)[2] = value
    with pytest.raises(
        FloatingPointError, match=rf'{name} not finite in image\(s\) \[1\]'
    ) as error:
        PixelContrastiveLoss()(**inputs)
    assert isinstance(error.value, CASTError) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    'change',
    [
        dict(z_strong=torch.zeros(2, 3, 2, 2)),
        dict(mask_logits=torch.zeros(1, 3, 4, 6)),
        dict(class_logits=torch.zeros(2, 4, 3)),
        dict(mask_logits=torch.zeros(2, 3, 24)),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(change):
    with pytest.raises(CASTError, match=r'z_weak and z_strong \(B, D, h, w\)'):
        PixelContrastiveLoss()(**{**make_inputs(), **change})


@pytest.mark.parametrize(
    'option, choices',
    [
        (dict(sampling='gumbel'), 'uniform.*mask.*class.*fusion'),
        (dict(negatives='all'), 'drawn.*expected'),
        (dict(anchor_sampling='random', num_anchors=3), 'uniform.*instance'),
    ],
)
def test_unknown_choices_are_refused_with_the_known_ones(option, choices):
    name, value = next(iter(option.items()))
    with pytest.raises(CASTError, match=f"{name}='{value}' is unknown.*{choices}"):
        PixelContrastiveLoss(**option)


@pytest.mark.parametrize(
    'option',
    [
        dict(temperature=0),
        dict(final_temperature=-0.1),
        dict(mask_temperature=0),
        dict(num_negatives=0),
        dict(num_anchors=0),
    ],
)
def test_options_out_of_range_are_refused_by_name(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        PixelContrastiveLoss(**option)


# ---- options


def test_temperature_schedule():
    loss = PixelContrastiveLoss(temperature=0.3, final_temperature=0.07)
    assert loss.temperature_at(0) == 0.3
    assert loss.temperature_at(0.5) == pytest.approx(0.185)
    assert loss.temperature_at(1) == pytest.approx(0.07)
    assert loss.temperature_at(1 + 1e-9) == loss.temperature_at(
        1
    )  # rounding of iteration / max_iters
    for progress in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match='progress'):
            loss.temperature_at(progress)


def test_num_anchors_averages_over_a_random_part(monkeypatch):
    seen = []

    def no_negatives(y, num_negatives, anchors):
        seen.append(anchors)
        return anchors.new_full((len(anchors), num_negatives), -1)

    monkeypatch.setattr(pixel_contrastive_loss, 'sample_negatives', no_negatives)
    for _ in range(30):
        PixelContrastiveLoss(num_anchors=4)(**make_inputs())
    assert all(len(set(a.tolist())) == 4 for a in seen)
    assert set(torch.cat(seen).tolist()) == set(range(12))


def test_num_anchors_beyond_all_pixels_takes_all():
    inputs = make_inputs()
    losses = []
    for num_anchors in (None, 100):
        torch.manual_seed(0)
        losses.append(PixelContrastiveLoss(num_negatives=5, num_anchors=num_anchors)(**inputs))
    assert torch.equal(*losses)


def test_num_anchors_is_unbiased():
    # Every anchor is as likely as any other, so the mean over many calls is the loss over all
    # anchors.
    inputs = make_inputs()
    torch.manual_seed(0)
    full = (
        torch.stack([PixelContrastiveLoss(num_negatives=20)(**inputs) for _ in range(100)])
        .mean()
        .item()
    )
    part = torch.stack(
        [PixelContrastiveLoss(num_negatives=20, num_anchors=4)(**inputs) for _ in range(400)]
    )
    assert abs(part.mean().item() - full) < 4 * part.std().item() / math.sqrt(400)


# ---- expected negatives


@pytest.mark.parametrize('sampling', MODES)
def test_expected_form_equals_its_definition(sampling):
    """-s+ + log(e^s+ + R E[e^s-]) with the expectation taken by a loop over all pixels."""
    inputs = make_inputs()
    loss = PixelContrastiveLoss(
        num_negatives=5, temperature=0.5, sampling=sampling, negatives='expected'
    )
    logits = inputs['mask_logits'].tolist(), inputs['class_logits'].tolist()
    y = reference.query_embeddings(*logits, (2, 3), 0.5, sampling)
    weak, strong = (
        torch.nn.functional.normalize(inputs[name].permute(0, 2, 3, 1).reshape(12, 3), dim=1)
        for name in ('z_weak', 'z_strong')
    )
    terms = []
    for a in range(12):
        scores = [0.0 if m == a else reference.s_deb(y[a], y[m]) for m in range(12)]
        mean = sum(
            score * math.exp(weak[a] @ weak[m] / 0.5) for m, score in enumerate(scores)
        ) / sum(scores)
        positive = math.exp(weak[a] @ strong[a] / 0.5)
        terms.append(-math.log(positive / (positive + 5 * mean)))
    assert loss(**inputs).item() == pytest.approx(sum(terms) / 12, rel=1e-10)


def gradient(loss, inputs):
    parts = torch.autograd.grad(loss(**inputs), [inputs['z_weak'], inputs['z_strong']])
    return torch.cat([part.flatten() for part in parts])


def test_expected_gradient_is_the_mean_of_drawn_ones():
    """Of many negatives: at few the mean of the logarithm is not the logarithm of the mean."""
    inputs = make_inputs()
    torch.manual_seed(0)
    drawn = torch.stack(
        [gradient(PixelContrastiveLoss(num_negatives=10_000), inputs) for _ in range(100)]
    )
    expected = gradient(PixelContrastiveLoss(num_negatives=10_000, negatives='expected'), inputs)
    error = (drawn.mean(0) - expected) / (drawn.std(0) / 10)  # in standard errors, of 72 numbers
    assert error.abs().max() < 4.5 and 0.5 < error.square().mean() < 2


def test_expected_form_repeats_without_a_seed():
    inputs = make_inputs(h=6, w=7)
    loss = PixelContrastiveLoss(negatives='expected')
    assert torch.equal(gradient(loss, inputs), gradient(loss, inputs))


# ---- anchors


def test_anchors_by_instance_give_small_instances_their_share(monkeypatch):
    """Of 64 pixels 4 belong to the second query: uniformly they are 1/16 of the anchors, by
    instance half.
    """
    seen = []
    real = pixel_contrastive_loss.sample_negatives
    monkeypatch.setattr(
        pixel_contrastive_loss,
        'sample_negatives',
        lambda y, R, anchors: seen.append(anchors) or real(y, R, anchors),
    )
    small = torch.zeros(1, 1, 8, 8)
    small[..., :2, :2] = 20
    z = torch.randn(1, 4, 8, 8)
    torch.manual_seed(0)
    shares = {}
    for anchor_sampling in ('uniform', 'instance'):
        loss = PixelContrastiveLoss(num_negatives=2, num_anchors=1, anchor_sampling=anchor_sampling)
        seen.clear()
        for _ in range(400):
            loss(z, z, torch.cat([10 - small, small], dim=1), torch.zeros(1, 2, 3))
        pixels = torch.cat(seen)
        shares[anchor_sampling] = ((pixels % 8 < 2) & (pixels < 16)).double().mean().item()
    assert shares['uniform'] == pytest.approx(1 / 16, abs=0.06)
    assert shares['instance'] == pytest.approx(1 / 2, abs=0.1)


@pytest.mark.parametrize('num_anchors', [8, 512, 2000])
def test_every_instance_has_its_share_of_many_anchors(num_anchors):
    """Also one with fewer pixels than its share, and where there are more anchors than pixels."""
    sizes = [4, 30, 200, 1172]
    instance = torch.arange(4).repeat_interleave(torch.tensor(sizes))
    loss = PixelContrastiveLoss(num_anchors=num_anchors, anchor_sampling='instance')
    torch.manual_seed(0)
    drawn = torch.cat([loss._draw_anchors(instance) for _ in range(100)])
    assert len(drawn) == 100 * min(num_anchors, sum(sizes))
    assert chisquare(instance[drawn].bincount()).pvalue > 1e-4
    assert chisquare(drawn[drawn < 4].bincount()).pvalue > 1e-4  # pixels of an instance are alike


@pytest.mark.parametrize('negatives', ['drawn', 'expected'])
def test_a_pixel_that_is_an_anchor_twice_counts_twice(monkeypatch, negatives):
    """In value and gradient, with negatives of its own."""
    drawn = dict(zip([7, 2], torch.tensor([[1, 4, 9], [5, 3, 0]])))
    monkeypatch.setattr(
        pixel_contrastive_loss,
        'sample_negatives',
        lambda y, R, anchors: torch.stack([drawn[i] for i in anchors.tolist()]),
    )
    inputs = make_inputs()
    loss = PixelContrastiveLoss(num_anchors=3, negatives=negatives, anchor_sampling='instance')

    def of(*anchors):
        monkeypatch.setattr(loss, '_draw_anchors', lambda _: torch.tensor(anchors))
        return loss(**inputs), gradient(loss, inputs)

    for twice, once, other in zip(of(7, 2, 7), of(7), of(2)):
        torch.testing.assert_close(twice, (2 * once + other) / 3)


def test_instances_of_different_images_are_different():
    """The same query claims both images, so each image is an instance."""
    loss = PixelContrastiveLoss(num_anchors=1, anchor_sampling='instance')
    _, instance = loss.compare(
        torch.tensor([5.0, 0.0]).view(1, 2, 1, 1).expand(2, 2, 4, 4), torch.zeros(2, 2, 3), (2, 3)
    )
    assert instance.tolist() == [0] * 6 + [2] * 6


@pytest.mark.parametrize('negatives', ['drawn', 'expected'])
def test_a_part_of_the_anchors_has_gradcheck(monkeypatch, negatives):
    fixed = torch.tensor([7, 2, 11])
    drawn = torch.tensor([[1, 1, 4, 9], [5, 3, 0, 0], [-1, -1, -1, -1]])
    monkeypatch.setattr(PixelContrastiveLoss, '_draw_anchors', lambda self, instance: fixed)
    monkeypatch.setattr(pixel_contrastive_loss, 'sample_negatives', lambda *args: drawn.clone())
    inputs = make_inputs()
    loss = PixelContrastiveLoss(num_anchors=3, negatives=negatives)

    def of_embeddings(z_weak, z_strong):
        return loss(z_weak, z_strong, inputs['mask_logits'], inputs['class_logits'], 0.5)

    assert torch.autograd.gradcheck(of_embeddings, (inputs['z_weak'], inputs['z_strong']))


def test_anchors_by_instance_without_a_number_are_refused():
    with pytest.raises(
        CASTError, match="anchor_sampling='instance' without num_anchors.*set num_anchors"
    ):
        PixelContrastiveLoss(anchor_sampling='instance')


def test_is_built_by_name_from_a_config():
    loss = MODELS.build(dict(type='PixelContrastiveLoss', num_negatives=7, sampling='mask'))
    assert isinstance(loss, PixelContrastiveLoss) and loss.num_negatives == 7
    assert not list(loss.parameters())
