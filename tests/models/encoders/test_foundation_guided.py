"""What a frozen ViT knows is added to an encoder's maps, from nothing on."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmcast.errors import CASTError
from mmcast.registry import MODELS

LITE = dict(type='TimmEncoder', name='tf_efficientnet_lite0')
VIT = dict(
    type='TimmEncoder',
    name='vit_small_patch14_dinov2',
    embed_dim=16,
    depth=4,
    num_heads=2,
)


def guided(encoder=LITE, foundation=VIT, **options):
    torch.manual_seed(0)
    network = MODELS.build(
        dict(type='FoundationGuidedEncoder', encoder=encoder, foundation=foundation, **options)
    )
    network.init_weights()
    return network


def images(*size, seed=0):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('count', [None, 2])
def test_at_the_start_the_maps_are_the_encoders(count):
    network = guided().eval()
    with torch.no_grad():
        found = network(images(64, 96), count)
        expected = network.encoder(images(64, 96), count)
    assert len(found) == len(expected) == (count or 4)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize('stride', [16, 8])
def test_the_maps_are_the_encoders_plus_projections_of_the_vits(stride):
    """Against the image in pixels, which is resized and normalised anew."""
    network = guided(stride=stride).eval()
    for projection in network.projections:
        nn.init.normal_(projection.weight)
        nn.init.normal_(projection.bias)
    own, vit = network.encoder, network.foundation
    normalised = images(64, 96)
    pixels = normalised * torch.tensor(own.std).view(3, 1, 1) + torch.tensor(own.mean).view(3, 1, 1)
    grid = 64 // stride, 96 // stride
    small = F.interpolate(pixels, [14 * side for side in grid], mode='bilinear', antialias=True)
    small = (small - torch.tensor(vit.mean).view(3, 1, 1)) / torch.tensor(vit.std).view(3, 1, 1)
    with torch.no_grad():
        known = torch.cat(vit(small)[2:], 1)
        assert known.shape == (2, 32, *grid)
        known = (known - known.mean((1, 2, 3), True)) / known.var(
            (1, 2, 3), unbiased=False, keepdim=True
        ).add(1e-5).sqrt()
        for i, (found, before) in enumerate(zip(network(normalised), own(normalised))):
            weight, bias = network.projections[i].weight, network.projections[i].bias
            added = torch.einsum('oc,bchw->bohw', weight[:, :, 0, 0], known)
            added = F.interpolate(added + bias.view(1, -1, 1, 1), before.shape[2:], mode='bilinear')
            torch.testing.assert_close(found, before + added, atol=1e-4, rtol=1e-4)


def test_the_vit_never_learns_and_all_else_does():
    network = guided().train()
    assert not any(part.training for part in network.foundation.modules())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    for _ in range(2):  # the projections' input has no gradient while they are zero
        optimizer.zero_grad()
        sum(each.square().mean() for each in network(images(64, 64))).backward()
        optimizer.step()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    same = {name for name, value in network.state_dict().items() if value.equal(before[name])}
    assert {name for name in before if name.startswith('foundation.')} <= same
    assert not any(name.startswith(('projections.', 'norm.')) for name in same)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(foundation=LITE), r'strides \[4, 8, 16, 32\]: give a plain ViT'),
        (dict(num_maps=5), 'num_maps from 1 to 4'),
        (dict(num_maps=0), 'num_maps from 1 to 4'),
        (dict(stride=0), 'stride 0 is no power of 2'),
        (dict(stride=24), 'stride 24 is no power of 2'),
        (dict(foundation=dict(type='DINOv2')), 'encoder and foundation are of TimmEncoder'),
    ],
)
def test_what_cannot_guide_is_refused(options, message):
    with pytest.raises(CASTError, match=message):
        guided(**options)


def test_an_image_that_the_stride_does_not_divide_is_refused():
    network = guided(stride=64)
    assert network.size_divisor == 64
    with pytest.raises(CASTError, match='do not divide by 64, .* pad_size_divisor=64'):
        network(images(96, 160))
