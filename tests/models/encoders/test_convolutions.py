"""Convolutions of timm's CNNs on a CPU: the values and gradients of timm's own."""

import copy
from contextlib import nullcontext

import pytest
import timm
import torch
import torch.nn.functional as F
from mmengine.model import convert_sync_batchnorm
from torch import nn

from mmcast.errors import CASTError
from mmcast.models.encoders.convolutions import (
    FoldedNorm,
    depthwise_conv2d,
    fold_fixed_norms,
    replace_convolutions,
)
from mmcast.training.distributed import check_sync_bn

# TensorFlow's padding with kernels of 5; ordinary padding; squeeze-and-excitation; blocks without
# and with expansion; convolutions in blocks of their own.
MODELS = ('tf_efficientnet_lite0', 'efficientnet_b0', 'mobilenetv4_conv_small')


def with_odd_norms(model):
    """Statistics and weights unlike 0 and 1, or folding would change nothing."""
    generator = torch.Generator().manual_seed(1)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -0.2, 0.2),
                (norm.running_var, 0.5, 2),
                (norm.weight, 0.7, 1.3),
                (norm.bias, -0.2, 0.2),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return model


def train_with_fixed_norms(model):
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def outputs_and_gradients(model, images):
    images = images.clone().requires_grad_()
    outputs = model(images)
    outputs.square().mean().backward()
    return outputs, [images.grad, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize('name', MODELS)
def test_folded_norms_give_timms_values_and_gradients_of_all_parameters(name):
    torch.manual_seed(0)
    options = dict(drop_path_rate=0.0, num_classes=4)
    theirs = with_odd_norms(timm.create_model(name, **options)).double()
    ours = copy.deepcopy(theirs)
    replace_convolutions(ours)
    train_with_fixed_norms(ours)
    fold_fixed_norms(ours)
    assert any(isinstance(part, FoldedNorm) and part.is_folded for part in ours.modules())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected, gradients = outputs_and_gradients(train_with_fixed_norms(theirs), images)
    found, found_gradients = outputs_and_gradients(ours, images)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_gradients, gradients)
    assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.parametrize('is_fixed', [False, True])
def test_only_fixed_statistics_in_training_are_folded(is_fixed):
    model = timm.create_model('tf_efficientnet_lite0', num_classes=4)
    replace_convolutions(model)
    norms = [part for part in model.modules() if isinstance(part, FoldedNorm)]
    for mode in (True, False):
        model.train(mode)
        if mode and is_fixed:
            train_with_fixed_norms(model)
        fold_fixed_norms(model)
        assert {norm.is_folded for norm in norms} == {is_fixed and mode}


@pytest.mark.parametrize('name, is_refused', [('tf_efficientnet_lite0', True), ('resnet18', False)])
def test_sync_bn_is_refused_where_it_would_take_activations_away(name, is_refused):
    model = timm.create_model(name, num_classes=4).eval()
    replace_convolutions(model)
    with pytest.raises(CASTError, match='FoldedNorm') if is_refused else nullcontext():
        check_sync_bn(model, 'torch')
    images = torch.randn(1, 3, 64, 64)
    expected = model(images)
    is_same = torch.allclose(convert_sync_batchnorm(model).eval()(images), expected)
    assert is_same != is_refused, 'what is refused, and nothing else, would predict otherwise'


def test_a_convolution_that_was_replaced_since_leaves_its_norm_to_work():
    """As LoRA replaces them: what it adds has to be normalised too."""
    model = timm.create_model('tf_efficientnet_lite0', num_classes=4)
    replace_convolutions(model)
    block = model.blocks[1][0]
    block.conv_pw = nn.Sequential(block.conv_pw)
    train_with_fixed_norms(model)
    fold_fixed_norms(model)
    assert not block.bn1.is_folded
    assert block.bn2.is_folded
    assert block.conv_pw[0].norm is None


@pytest.mark.parametrize('kernel', [(5, 5), (3, 7), (4, 4)])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('with_bias', [True, False])
def test_depthwise_gradients_are_torchs(kernel, stride, with_bias):
    """Kernels of which the columns divide by three or not, and images whose sides do not divide by
    the stride.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 6, 13, 10, dtype=torch.float64, generator=generator)
    images = images.to(memory_format=torch.channels_last)
    weight = torch.randn(6, 1, *kernel, dtype=torch.float64, generator=generator)
    bias = torch.randn(6, dtype=torch.float64, generator=generator) if with_bias else None
    padding = (kernel[0] // 2, kernel[1] // 2)
    inputs = [t for t in (images, weight, bias) if t is not None]
    results = []
    for convolve in (
        lambda *a: depthwise_conv2d(*a, (stride, stride), padding),
        lambda *a: F.conv2d(*a, stride, padding, groups=6),
    ):
        leaves = [t.detach().requires_grad_() for t in inputs]
        output = convolve(leaves[0], leaves[1], leaves[2] if with_bias else None)
        results.append((output, torch.autograd.grad(output.square().sum(), leaves)))
    torch.testing.assert_close(results[0], results[1])


def test_depthwise_gradients_under_autocast_keep_the_parameters_type():
    torch.manual_seed(0)
    images, weight = torch.randn(2, 16, 9, 9), torch.randn(16, 1, 5, 5, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16):
        output = depthwise_conv2d(images, weight, None, (1, 1), (2, 2))
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    expected = weight.detach().clone().requires_grad_()
    F.conv2d(images, expected, None, 1, 2, groups=16).sum().backward()
    torch.testing.assert_close(weight.grad, expected.grad, rtol=0.02, atol=0.5)
