"""Convolutions of timm's CNNs that export with fixed padding and train faster on a CPU, to the same
values but for rounding.

Two things are slow there. Batch normalisation with fixed statistics goes through every map again,
though it is no more than a scale and a shift of the convolution before it. And the weight gradient
of a depthwise convolution that is more than three columns wide takes 5 to 18 times as long as of
three columns (torch 2.14.1, findings/torch_depthwise_wide_gradient.sh).
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcast.optional import require

INSTALL = 'pip install "mmcast[encoders]", or pip install timm'
timm_layers = require('timm.layers', INSTALL)
_blocks = require('timm.models._efficientnet_blocks', INSTALL)
_efficientnet = require('timm.models.efficientnet', INSTALL)

MOST_COLUMNS = 3  # of a kernel whose depthwise weight gradient is fast

# Convolutions whose output goes into a normalisation and nowhere else, by the block they are in.
_PAIRS = {
    _efficientnet.EfficientNet: (('conv_stem', 'bn1'),),
    timm_layers.ConvNormAct: (('conv', 'bn'),),
    _blocks.ConvBnAct: (('conv', 'bn1'),),
    _blocks.DepthwiseSeparableConv: (('conv_dw', 'bn1'), ('conv_pw', 'bn2')),
    _blocks.InvertedResidual: (('conv_pw', 'bn1'), ('conv_dw', 'bn2'), ('conv_pwl', 'bn3')),
    _blocks.EdgeResidual: (('conv_exp', 'bn1'), ('conv_pwl', 'bn2')),
}


class FoldingConv2d(nn.Conv2d):
    """A convolution that takes the normalisation behind it into its weights.

    Attributes:
        norm: That normalisation in a tuple, which hides it from ``parameters()``; None where it
            works by itself, see :func:`fold_fixed_norms`.
    """

    norm: 'tuple[FoldedNorm] | None' = None

    def forward(self, images: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if self.norm is not None and images.is_cpu:
            weight, bias = _fold(weight, bias, self.norm[0])
        return self.convolve(images, weight, bias, self.padding)

    def convolve(
        self, images: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int] | str
    ) -> Tensor:
        """The convolution with other weights and padding."""
        if self._is_wide_depthwise() and images.is_cpu and torch.is_grad_enabled():
            return depthwise_conv2d(images, weight, bias, self.stride, padding)
        return F.conv2d(images, weight, bias, self.stride, padding, self.dilation, self.groups)

    def _is_wide_depthwise(self) -> bool:
        return (
            self.groups == self.in_channels == self.out_channels
            and self.kernel_size[1] > MOST_COLUMNS
            and self.dilation == (1, 1)
            and not isinstance(self.padding, str)
        )


class FixedSamePadding(FoldingConv2d):
    """A convolution padded as in TensorFlow for sides that are multiples of the stride.

    The number of pixels then is the kernel's extent less the stride, the odd one at the bottom and
    right.
    """

    def convolve(
        self, images: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int] | str
    ) -> Tensor:
        added = []
        for side in (1, 0):  # F.pad begins with the last dimension
            extent = self.dilation[side] * (self.kernel_size[side] - 1) + 1
            missing = max(extent - self.stride[side], 0)
            added += [missing // 2, missing - missing // 2]
        return super().convolve(F.pad(images, added), weight, bias, (0, 0))


class FoldedNorm(timm_layers.BatchNormAct2d):  # type: ignore[name-defined]
    """timm's batch normalisation with its activation, which leaves the first to the convolution
    before it while ``is_folded``.
    """

    is_folded = False

    def forward(self, maps: Tensor) -> Tensor:
        if self.is_folded and maps.is_cpu:
            return self.act(self.drop(maps))
        return super().forward(maps)


def replace_convolutions(model: nn.Module) -> None:
    """Makes timm's convolutions and the normalisations behind them these ones, with the same
    parameters and names.
    """
    for parent in list(model.modules()):
        if type(parent) is timm_layers.Conv2dSame:
            parent.__class__ = FixedSamePadding
        elif type(parent) is nn.Conv2d and parent.padding_mode == 'zeros':
            parent.__class__ = FoldingConv2d
    for _, norm in _pairs(model):
        if type(norm) is timm_layers.BatchNormAct2d:
            norm.__class__ = FoldedNorm


def fold_fixed_norms(model: nn.Module) -> None:
    """Lets convolutions in training do the work of normalisations whose statistics are fixed.

    In eval mode nothing changes: predictions stay equal to the last bit.
    """
    for conv, norm in _pairs(model):
        if not isinstance(norm, FoldedNorm):
            continue
        # Something else, such as a LoRA adapter, may have taken the convolution's place since.
        is_folded = isinstance(conv, FoldingConv2d) and conv.training and not norm.training
        norm.is_folded = is_folded
        if isinstance(conv, FoldingConv2d):
            conv.norm = (norm,) if is_folded else None


@torch.no_grad()
def fold_norms_for_good(model: nn.Module) -> None:
    """Puts normalisations into the weights of the convolutions before them, to predict only.

    What is left of them on a CPU is the activation, elsewhere also a mean of 0 and a variance of 1.
    """
    for conv, norm in _pairs(model):
        if not isinstance(norm, FoldedNorm) or not isinstance(conv, FoldingConv2d):
            continue
        weight, bias = _fold(conv.weight, conv.bias, norm)
        conv.weight, conv.bias = (nn.Parameter(part, False) for part in (weight, bias))
        conv.norm, norm.is_folded = None, True
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        norm.weight, norm.bias = None, None
        if type(conv) is FoldingConv2d:
            conv.__class__ = nn.Conv2d


def _pairs(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Convolutions, or what has taken their place, and their normalisations."""
    for block in model.modules():
        for conv, norm in _PAIRS.get(type(block), ()):
            yield getattr(block, conv), getattr(block, norm)


def _fold(weight: Tensor, bias: Tensor | None, norm: FoldedNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with a normalisation of fixed statistics behind it.

    Gradients reach the parameters of both.
    """
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else norm.weight * scale
    mean = norm.running_mean if bias is None else norm.running_mean - bias
    shift = -mean * scale if norm.bias is None else norm.bias - mean * scale
    return weight * scale[:, None, None, None], shift


def depthwise_conv2d(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """A depthwise convolution whose weight gradient is taken three columns of the kernel at a time.

    Args:
        images: (B, C, H, W), best in channels_last.
        weight: (C, 1, h, w).
        bias: (C,) or None.
        stride: Of rows and columns.
        padding: Of rows and columns, with zeros.

    Returns:
        (B, C, H', W').
    """
    if torch.is_autocast_enabled('cpu'):  # which does not reach into a backward of our own
        dtype = torch.get_autocast_dtype('cpu')
        images, weight = images.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    return _DepthwiseConv2d.apply(images, weight, bias, stride, padding)


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        of_images = of_weight = of_bias = None
        if needed[0]:
            of_images, _, _ = _backward(
                gradient, images, weight, ctx.stride, ctx.padding, (True, False, False)
            )
        if needed[1]:
            columns = weight.shape[3]
            parts = []
            for first in range(0, columns, MOST_COLUMNS):
                kernel = weight[..., first : first + MOST_COLUMNS]
                left = first - ctx.padding[1]
                right = left + (gradient.shape[3] - 1) * ctx.stride[1] + kernel.shape[3]
                seen = F.pad(images, (-left, right - images.shape[3]))
                with_bias = needed[2] and not parts  # costs next to nothing beside a weight's
                _, part, found = _backward(
                    gradient,
                    seen,
                    kernel,
                    ctx.stride,
                    (ctx.padding[0], 0),
                    (False, True, with_bias),
                )
                parts.append(part)
                of_bias = found if with_bias else of_bias
            of_weight = torch.cat(parts, dim=3)
        elif needed[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_images, of_weight, of_bias, None, None


def _backward(
    gradient: Tensor,
    images: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, ...]:
    """Gradients of images, weight and bias of a depthwise convolution, those that are wanted."""
    return torch.ops.aten.convolution_backward(
        gradient,
        images,
        weight,
        [len(weight)],
        stride,
        padding,
        [1, 1],
        False,
        [0, 0],
        len(weight),
        wanted,
    )
