"""Any encoder of timm with feature maps: CNNs, hierarchical and plain transformers."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmcast.errors import CASTError
from mmcast.models.encoders.convolutions import (
    INSTALL,
    fold_fixed_norms,
    fold_norms_for_good,
    replace_convolutions,
)
from mmcast.models.encoders.encoder_weights import read_encoder_weights
from mmcast.models.weights.initialization import split_init_cfg
from mmcast.models.weights.reading import describe_mismatch
from mmcast.optional import require
from mmcast.registry import MODELS
from mmcast.spelling import hint

timm = require('timm', INSTALL)

LEAST_STRIDE = 4  # finer maps are no use to the pixel decoder, and expensive


@MODELS.register_module()
class TimmEncoder(BaseModule):
    """A timm model without its classifier that returns feature maps (B, C, h, w), finest first.

    ``timm.list_models()`` has the names. A pyramid (CNN, Swin) gives its last map of each stride
    from 4 on; a plain ViT gives the maps after 1/4, 2/4, 3/4 and 4/4 of its blocks, all of one
    stride and with the final norm, as DINOv2's and DINOv3's own ``get_intermediate_layers`` does.
    Images of any size whose sides are multiples of ``size_divisor`` are taken where the model can;
    a model of fixed size wants that size as ``img_size`` and all images in it.

    Convolutions padded as in TensorFlow (``tf_*``) pad by fixed numbers here, equal to timm's at
    multiples of ``size_divisor``: timm's own computation of the padding keeps the ONNX exporter
    busy for minutes.

    Args:
        name: of the model in timm. A tag after a dot, which names published weights, is left out.
        out_indices: Which maps, ascending, as timm counts them (stages, or blocks of a ViT). What
            follows the last one is not built.
        frozen_stages: The stem and so many stages (blocks of a ViT) do not learn; -1: all learn.
        norm_eval: Batch normalisation keeps its statistics in training, which batches of a few
            images need; its weights learn all the same.
        channels_last: Memory layout of images and maps. Depthwise convolutions train 1.7 times as
            fast in it on a CPU.
        init_cfg: ``dict(type='Pretrained', checkpoint=WEIGHTS)`` loads weights as
            ``read_encoder_weights`` finds them: a file, of a detector with this encoder too, a name
            on Hugging Face or a package.
        kwargs: further arguments of the model, such as ``drop_path_rate`` or ``img_size``.

    Attributes:
        channels: of the maps.
        strides: of the maps, in pixels.
        size_divisor: what the sides of images have to be multiples of, the largest stride.
        mean, std: normalisation of the published weights, for pixels from 0 to 255, RGB.

    Raises:
        CASTError: timm has no such model, it does not give such maps, or ``frozen_stages`` is of no
            use for it.
    """

    def __init__(
        self,
        name: str,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = True,
        channels_last: bool = False,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg)
        self.name, self.norm_eval, self.channels_last = name, norm_eval, channels_last
        self.model = _create(name, kwargs)
        info = _feature_info(self.model, name)
        strides = [level['reduction'] for level in info]
        self.out_indices = _choose_maps(name, strides, out_indices)
        self.channels = [info[index]['num_chs'] for index in self.out_indices]
        self.strides = [strides[index] for index in self.out_indices]
        self.size_divisor = max(self.strides)
        pretrained = self.model.pretrained_cfg
        self.mean, self.std = (
            [255 * value for value in pretrained[key]] for key in ('mean', 'std')
        )
        self._is_plain = len(set(strides)) == 1
        self._depths = _groups(self.model, coarse=False)
        stages = _groups(self.model, coarse=True)
        self._left_out = set(self.model.state_dict())
        self.model.prune_intermediate_layers(self.out_indices, prune_norm=not self._is_plain)
        self._left_out -= set(self.model.state_dict())
        replace_convolutions(self.model)
        self._freeze(frozen_stages, stages)
        if channels_last:
            self.model.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, num_maps: int | None = None) -> tuple[Tensor, ...]:
        """Maps (B, C_i, H / s_i, W / s_i) of images (B, 3, H, W).

        Args:
            images: Normalised.
            num_maps: So many of the maps, the finest; what only others need is not computed.
                Default all.

        Raises:
            CASTError: H or W is no multiple of ``size_divisor``, or not what a model of fixed size
                takes; masks would not lie on the image.
        """
        if torch.compiler.is_exporting():
            return self._maps(images, num_maps)
        height, width = images.shape[-2:]
        if height % self.size_divisor or width % self.size_divisor:
            raise CASTError(
                f'inputs of {(height, width)} pixels do not divide by {self.size_divisor}, the '
                f"largest stride of timm's {self.name}: set pad_size_divisor={self.size_divisor} "
                "in the model's data_preprocessor"
            )
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        try:
            maps = self._maps(images, num_maps)
        except (AssertionError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not re.search(
                'shape|size of tensor', str(error)
            ):
                raise
            raise CASTError(
                f"timm's {self.name} does not take inputs of {(height, width)} pixels ({error}): "
                'give the size as img_size among its arguments, or choose an encoder of any size'
            ) from error
        found = [tuple(each.shape[-2:]) for each in maps]
        expected = [(height // stride, width // stride) for stride in self.strides[:num_maps]]
        if found != expected:
            raise CASTError(
                f"timm's {self.name} gives maps of {found} in place of {expected} for inputs of "
                f'{(height, width)} pixels: set pad_size_divisor={2 * self.size_divisor} in the '
                "model's data_preprocessor"
            )
        return maps

    def _maps(self, images: Tensor, num_maps: int | None) -> tuple[Tensor, ...]:
        return tuple(
            self.model.forward_intermediates(
                images,
                indices=self.out_indices[:num_maps],
                stop_early=True,
                norm=self._is_plain,
                output_fmt='NCHW',  # Swin's own is NHWC
                intermediates_only=True,
            )
        )

    def train(self, mode: bool = True) -> 'TimmEncoder':
        """Training mode, but for batch normalisation under ``norm_eval`` and in frozen stages."""
        super().train(mode)
        for module in self.model.modules():
            if isinstance(module, _BatchNorm):
                frozen = not any(p.requires_grad for p in module.parameters(recurse=False))
                module.train(mode and not self.norm_eval and not (module.affine and frozen))
        fold_fixed_norms(self.model)
        return self

    def fold_norms(self) -> None:
        """Puts fixed batch normalisations into the weights of convolutions, where they are faster
        on a CPU: for an encoder that only predicts from now on.
        """
        fold_norms_for_good(self.model)

    def init_weights(self) -> None:
        """timm's random weights, or those that ``init_cfg`` names (see :meth:`load_pretrained`)."""
        _, pretrained = split_init_cfg(self.init_cfg)
        if pretrained:
            self.load_pretrained(pretrained[-1]['checkpoint'], pretrained[-1].get('prefix', ''))
        self._is_init = True

    def load_pretrained(self, source: str, prefix: str = '') -> None:
        """Fill every parameter from a weights file; what was left out of the model may be in it.

        Raises:
            CASTError: not found, unreadable, or of another model; names the first differences.
        """
        state = read_encoder_weights(source, self.model, prefix)
        expected = self.model.state_dict()
        mismatch = describe_mismatch(
            expected, {key: value for key, value in state.items() if key not in self._left_out}
        )
        if mismatch:
            raise CASTError(
                f"{source} does not fit timm's {self.name}: {mismatch}; give weights of that "
                'model, or the name of the model that they are of'
            )
        self.model.load_state_dict({key: state[key] for key in expected})

    def get_layer_depth(self, name: str, prefix: str = '') -> tuple[int, int] | None:
        """How deep a parameter is, for learning rates by layer.

        Args:
            name: of the parameter in the whole network.
            prefix: of this encoder there, with a dot.

        Returns:
            Its depth, 0 for the stem, and the number of depths, what follows the encoder included;
            None where timm has not grouped the model.
        """
        if not self._depths:
            return None
        depth = self._depths[name.removeprefix(f'{prefix}model.')]
        return depth, max(self._depths.values()) + 1

    def _freeze(self, frozen_stages: int, stages: dict[str, int]) -> None:
        if frozen_stages < 0:
            return
        if not stages:
            raise CASTError(
                f"timm's {self.name} has no stages that could be told apart: leave frozen_stages "
                'out, or give these parameters lr_mult=0'
            )
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(stages[name] > frozen_stages)


def _create(name: str, kwargs: dict) -> nn.Module:
    """A model with a classifier of one class: what is to follow the maps has a depth of its own."""
    name = name.partition('.')[0]
    if not timm.is_model(name):
        known = hint(name, timm.list_models())
        raise CASTError(f'timm {timm.__version__} has no model {name}: {known}')
    try:
        try:
            return timm.create_model(name, num_classes=1, **{'dynamic_img_size': True} | kwargs)
        except TypeError as error:  # what has no such option is of any size, or of one alone
            if 'dynamic_img_size' not in str(error) or 'dynamic_img_size' in kwargs:
                raise
            return timm.create_model(name, num_classes=1, **kwargs)
    except TypeError as error:
        raise CASTError(f"timm's {name}: {error}; correct the options of backbone") from error


def _feature_info(model: nn.Module, name: str) -> list[dict]:
    """timm's description of the maps, one dict each with ``num_chs`` and ``reduction``."""
    info = getattr(model, 'feature_info', None)
    needed = ('forward_intermediates', 'prune_intermediate_layers')
    if not info or not all(hasattr(model, method) for method in needed):
        raise CASTError(
            f"timm's {name} has no feature maps; timm.list_models() has others, and "
            'docs/encoders.md those that were tried'
        )
    return list(info)


def _choose_maps(name: str, strides: list[int], wanted: Sequence[int] | None) -> list[int]:
    """Indices of the maps: those that were asked for, or those of the class's description."""
    count = len(strides)
    if wanted is not None:
        if not wanted or list(wanted) != sorted(set(wanted) & set(range(count))):
            raise CASTError(
                f"out_indices={tuple(wanted)} of timm's {name}: give ascending numbers from 0 to "
                f'{count - 1}; the strides of these maps are {strides}'
            )
        return list(wanted)
    if len(set(strides)) == 1:
        return [count * part // 4 - 1 for part in (1, 2, 3, 4)] if count >= 4 else [*range(count)]
    last = {stride: index for index, stride in enumerate(strides)}
    return [index for stride, index in last.items() if stride >= LEAST_STRIDE]


def _groups(model: nn.Module, coarse: bool) -> dict[str, int]:
    """Depth of each parameter by name: stem 0, stages (or blocks, if not coarse), what follows."""
    if not hasattr(model, 'group_matcher'):
        return {}
    return timm.models.group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
