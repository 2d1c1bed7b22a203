"""Where the gradients of the pixel loss go, and what it costs in parameters."""

import pytest
import torch

from mmcast.errors import CASTError
from mmcast.models.pixel_contrast import PixelContrast


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    weak = [torch.randn(2, 6, 5, 7, requires_grad=True) for _ in range(2)]
    strong = [torch.randn(2, 6, 5, 7, requires_grad=True) for _ in range(2)]
    masks = torch.randn(2, 4, 10, 14, requires_grad=True)
    classes = torch.randn(2, 4, 3, requires_grad=True)
    return weak, strong, masks, classes


def build(**kwargs):
    torch.manual_seed(1)
    return PixelContrast(in_channels=6, **dict(dict(embed_dims=4, loss_weight=0.1), **kwargs))


def test_the_strong_view_and_the_queries_get_no_gradient(inputs):
    weak, strong, masks, classes = inputs
    model = build()
    model(*inputs, progress=0.0).backward()
    assert weak[1].grad.abs().sum() > 0 and weak[0].grad is None
    assert strong[1].grad is None and masks.grad is None and classes.grad is None
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_projector_learns_from_both_views(inputs):
    """With the weak view cut off as well, there is still a gradient, and it is another one."""
    weak, strong, masks, classes = inputs
    gradients = []
    for views in ((weak, strong), (weak, weak)):
        model = build()
        torch.manual_seed(2)
        model(*views, masks, classes, progress=0.0).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert not torch.allclose(*gradients)


def test_weight_and_progress_reach_the_loss(inputs):
    def loss(progress, **kwargs):
        model = build(**kwargs)
        torch.manual_seed(2)
        return model(*inputs, progress=progress)

    torch.testing.assert_close(loss(0.0, loss_weight=0.3), 3 * loss(0.0))
    cold = dict(type='PixelContrastiveLoss', temperature=0.07, final_temperature=0.07)
    torch.testing.assert_close(loss(1.0), loss(0.0, loss=cold))


def test_projector_is_three_linear_layers_of_every_pixel():
    model = build(hidden_dims=10, pool=1)
    w1, w2, w3 = [p[:, :, 0, 0] for p in model.parameters()]
    feature = torch.randn(2, 6, 3, 4)
    pixel = feature[1, :, 2, 3]
    torch.testing.assert_close(
        model.project([feature])[1, :, 2, 3], w3 @ (w2 @ (w1 @ pixel).relu()).relu()
    )


@pytest.mark.parametrize('height, width', [(5, 7), (37, 8), (4, 6)])
def test_pooled_cells_are_equal_also_of_odd_maps(height, width):
    """The loss resizes masks onto equal cells, so the embeddings have to be of the same."""
    model = build()
    feature = torch.randn(1, 6, height, width)
    rows, columns = (height + 1) // 2, (width + 1) // 2
    # Slow reference: pixels cut into as many parts as there are cells, and the parts shared out.
    fine = feature.repeat_interleave(rows, 2).repeat_interleave(columns, 3)
    parts = fine.view(1, 6, rows, height, columns, width)
    torch.testing.assert_close(model.project([feature]), model.projector(parts.mean((3, 5))))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_mixed_precision_rounds_pooled_cells_of_odd_maps_once(dtype):
    """As those of even ones: averaged in single precision, whatever the map has."""
    model = build()
    model.projector = torch.nn.Identity()
    feature = torch.randn(1, 6, 5, 7)
    exact = model.project([feature])
    with torch.autocast('cpu', dtype=dtype):
        assert torch.equal(model.project([feature]), exact)
        low = model.project([feature.to(dtype)])
    assert torch.equal(low, model.project([feature.to(dtype).float()]).to(dtype))


def test_an_option_of_loss_or_strong_view_may_be_given_alone():
    contrast = PixelContrast(
        in_channels=4, loss=dict(sampling='mask'), strong_view=dict(grayscale=1.0)
    )
    assert (contrast.loss.sampling, contrast.loss.num_negatives) == ('mask', 200)
    gray = contrast.strong_view(torch.rand(1, 3, 8, 8), torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    assert torch.equal(gray[:, 0], gray[:, 1])


def test_unknown_source_is_refused():
    with pytest.raises(CASTError, match="source='neck' is unknown.*encoder.*pixel_decoder"):
        build(source='neck')
