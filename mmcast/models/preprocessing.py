"""From the input of one network to that of another: each has its own data preprocessor."""

import torch
from mmdet.structures import SampleList
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from torch import Tensor, nn


def prepare_for(
    other: nn.Module, own: nn.Module, batch_inputs: Tensor, samples: SampleList
) -> tuple[Tensor, SampleList]:
    """A batch as another network's data preprocessor would have made it of the same images.

    Without padding, which is the other's own: results at ``img_shape`` or ``ori_shape`` are of the
    same pixels for both.

    Args:
        other: Data preprocessor of the network that is to see the images. MMEngine's plain one,
            which a network without ``data_preprocessor`` has, leaves the batch as it is.
        own: The one that made the batch.
        batch_inputs: (B, 3, H, W).
        samples: With ``img_shape``.

    Returns:
        Inputs (B, 3, H', W'), and samples without labels whose meta information fits them.
    """
    samples = [sample.new(data={}) for sample in samples]
    if type(other) is BaseDataPreprocessor or _alike(other, own):
        return batch_inputs, samples
    images = [
        image[:, : sample.img_shape[0], : sample.img_shape[1]]
        for image, sample in zip(_recover_pixels(batch_inputs, own), samples)
    ]
    data = other(dict(inputs=images, data_samples=samples), False)
    return data['inputs'], data['data_samples']


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two preprocessors make the same of an image."""
    if one is other:
        return True
    if type(one) is not type(other) or not isinstance(one, ImgDataPreprocessor):
        return False
    plain = ('_enable_normalize', '_channel_conversion', 'pad_size_divisor', 'pad_value')
    if any(getattr(one, name) != getattr(other, name) for name in plain):
        return False
    return not one._enable_normalize or (
        torch.equal(one.mean, other.mean) and torch.equal(one.std, other.std)
    )


def _recover_pixels(batch_inputs: Tensor, preprocessor: nn.Module) -> Tensor:
    """(B, 3, H, W) in the channel order and range that images were loaded in."""
    pixels = batch_inputs.float()
    if getattr(preprocessor, '_enable_normalize', False):
        pixels = pixels * preprocessor.std + preprocessor.mean
    if getattr(preprocessor, '_channel_conversion', False):
        pixels = pixels.flip(1)
    return pixels
