"""Networks that only predict from now on, made faster on a CPU, to the same values but for
rounding.
"""

import torch
from mmdet.models.backbones import ResNet
from torch import Tensor, nn

from mmcast.models.student.dpt import DPTPixelDecoder


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution through oneDNN.

    Of one thread and less than 16 images, PyTorch leaves it to a kernel that takes up to twice as
    long in channels_last.
    """

    def forward(self, images: Tensor) -> Tensor:
        plain = images.is_cpu and images.dtype == self.weight.dtype == torch.float32
        if not plain or torch.is_grad_enabled() or torch.is_autocast_enabled('cpu'):
            return super().forward(images)
        return torch.mkldnn_convolution(
            images,
            self.weight,
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
        )


def speed_up_on_cpu(model: nn.Module) -> None:
    """Changes a network in place, its parameters too, so that it predicts faster on a CPU.

    Fixed normalisations of a ``TimmEncoder`` go into its convolutions; 1x1 convolutions run in
    oneDNN; a ResNet and a ``DPTPixelDecoder`` compute in channels_last. Values change by rounding
    alone. Only for a network that is neither trained nor saved afterwards.
    """
    for part in model.modules():
        if hasattr(part, 'fold_norms'):
            part.fold_norms()
        if isinstance(part, (ResNet, DPTPixelDecoder)):
            part.to(memory_format=torch.channels_last)
    if torch.backends.mkldnn.is_available():
        for part in model.modules():
            if _is_pointwise(part):
                part.__class__ = PointwiseConv2d


def _is_pointwise(part: nn.Module) -> bool:
    """Whether it is a 1x1 convolution that PyTorch may leave to another kernel; those with a
    stride it does not.
    """
    return (
        type(part) is nn.Conv2d
        and part.kernel_size == (1, 1)
        and part.stride == (1, 1)
        and part.padding == (0, 0)
        and part.groups == 1
        and part.padding_mode == 'zeros'
    )
