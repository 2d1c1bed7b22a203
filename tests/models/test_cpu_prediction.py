"""A network made faster on a CPU predicts the same values."""

import copy

import pytest
import torch
from torch import nn

from mmcast.models.cpu_prediction import PointwiseConv2d, speed_up_on_cpu
from mmcast.registry import MODELS

NARROW = dict(depth=18, num_stages=4, base_channels=8, stem_channels=8, style='pytorch')


def encoder(kind):
    torch.manual_seed(0)
    if kind == 'resnet':
        return MODELS.build(dict(type='ResNet', norm_cfg=dict(type='GN', num_groups=4), **NARROW))
    model = MODELS.build(dict(type='TimmEncoder', name='tf_efficientnet_lite0', channels_last=True))
    for norm in model.modules():  # unlike 0 and 1, or folding would change nothing
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.running_mean, norm.bias):
                tensor.data.uniform_(-0.2, 0.2)
            for tensor in (norm.running_var, norm.weight):
                tensor.data.uniform_(0.7, 1.5)
    return model


@pytest.mark.parametrize('kind, channels', [('resnet', (8, 16, 32, 64)), ('timm', None)])
def test_encoder_and_pixel_decoder_give_the_same_maps(kind, channels):
    network = nn.Sequential(
        encoder(kind),
        MODELS.build(
            dict(
                type='DPTPixelDecoder',
                in_channels=channels or (24, 40, 112, 320),
                feat_channels=16,
                out_channels=16,
                reassemble_channels=(8, 8, 8, 8),
                scales=(1, 1, 1, 1),
                num_groups=4,
            )
        ),
    ).eval()
    fast = copy.deepcopy(network)
    speed_up_on_cpu(fast)
    assert any(type(part) is PointwiseConv2d for part in fast.modules())
    norms = [part for part in fast.modules() if isinstance(part, nn.BatchNorm2d)]
    assert all(norm.is_folded for norm in norms)
    for count in (1, 2):
        images = torch.randn(count, 3, 64, 96)
        with torch.no_grad():
            expected, found = network(images), fast(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # Where gradients are wanted, and in the modes of training and evaluation, the values stay.
    fast.train().eval()
    torch.testing.assert_close(fast(images), network(images), rtol=1e-4, atol=1e-5)


def test_a_pointwise_convolution_takes_other_inputs_as_before():
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 10, 1)
    fast = copy.deepcopy(plain)
    fast.__class__ = PointwiseConv2d
    images = torch.randn(2, 6, 5, 7)
    with torch.no_grad():
        torch.testing.assert_close(fast(images), plain(images))
        torch.testing.assert_close(fast.double()(images.double()), plain.double()(images.double()))
        with torch.autocast('cpu', torch.bfloat16):
            assert fast.float()(images).dtype == torch.bfloat16
