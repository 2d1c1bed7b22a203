"""DINOv2 encoder (Oquab et al., arXiv 2304.07193): mmpretrain's ViT, four feature maps, public
weights.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models.backbones.vision_transformer import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor

from mmcast.errors import CASTError
from mmcast.models.lora import plain_state
from mmcast.models.weights.initialization import split_init_cfg
from mmcast.models.weights.reading import describe_mismatch
from mmcast.models.weights.sources import read_encoder_file
from mmcast.registry import MODELS

WEIGHTS_SOURCE = (
    'https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth (or '
    'model.safetensors of huggingface.co/facebook/dinov2-small)'
)

# Names in a network of transformers 5 to those in Hugging Face's files.
_V5_TO_FILES = [
    (r'^(.*)\.attention\.q_proj\.', r'\1.attention.attention.query.'),
    (r'^(.*)\.attention\.k_proj\.', r'\1.attention.attention.key.'),
    (r'^(.*)\.attention\.v_proj\.', r'\1.attention.attention.value.'),
    (r'^(.*)\.attention\.o_proj\.', r'\1.attention.output.dense.'),
]
# Hugging Face names to Meta's; query, key and value are joined first.
_HF_TO_META = [
    (r'^embeddings\.(cls_token|mask_token|register_tokens)$', r'\1'),
    (r'^embeddings\.position_embeddings$', 'pos_embed'),
    (r'^embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
    (r'^encoder\.layer\.(\d+)\.attention\.output\.dense\.', r'blocks.\1.attn.proj.'),
    (r'^encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$', r'blocks.\1.ls\2.gamma'),
    (r'^encoder\.layer\.', 'blocks.'),
    (r'^layernorm\.', 'norm.'),
]
_META_TO_OWN = [
    (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'^blocks\.(\d+)\.norm([12])\.', r'layers.\1.ln\2.'),
    (r'^blocks\.(\d+)\.ls1\.gamma$', r'layers.\1.attn.gamma1.weight'),
    (r'^blocks\.(\d+)\.ls2\.gamma$', r'layers.\1.ffn.gamma2.weight'),
    (r'^blocks\.(\d+)\.mlp\.fc1\.', r'layers.\1.ffn.layers.0.0.'),
    (r'^blocks\.(\d+)\.mlp\.fc2\.', r'layers.\1.ffn.layers.1.'),
    (r'^blocks\.', 'layers.'),
    (r'^norm\.', 'ln1.'),
]


@MODELS.register_module()
class DINOv2(VisionTransformer):
    """A DINOv2 vision transformer that returns one feature map per requested layer.

    The final LayerNorm is applied to every returned layer, as DINOv2's own
    ``get_intermediate_layers(norm=True)`` and ``transformers.Dinov2Backbone`` do. There is no mask
    token: it serves pre-training only, and a parameter without gradient stops distributed training.
    For the same reason the last layer must be among ``out_indices``.

    Args:
        arch: a name of mmpretrain's, or a dict of embed_dims, num_layers, num_heads,
            feedforward_channels.
        patch_size: side of a patch in pixels.
        img_size: side of the square image that the stored position embedding is for (518 for the
            public weights); the input may have any size, the embedding is interpolated to it.
        out_indices: layers (from 0) whose output is returned, ascending, the last layer included.
        layer_scale_init_value: LayerScale at the start; DINOv2 has it in every layer.
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH)`` loads the public weights in Meta's or
            Hugging Face's key layout, or weights saved from this class or a detector with it.
        kwargs: further options of mmpretrain's ``VisionTransformer``, for example
            ``drop_path_rate``.

    Raises:
        ValueError: ``out_indices`` do not fit the number of layers.
    """

    def __init__(
        self,
        arch: str | dict = 'dinov2-small',
        patch_size: int = 14,
        img_size: int = 518,
        out_indices: Sequence[int] = (2, 5, 8, 11),
        layer_scale_init_value: float = 1e-5,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            arch=arch,
            patch_size=patch_size,
            img_size=img_size,
            out_indices=list(out_indices),
            layer_scale_init_value=layer_scale_init_value,
            out_type='featmap',
            init_cfg=init_cfg,
            **kwargs,
        )
        self.patch_size = patch_size
        self.channels = [self.embed_dims] * len(out_indices)
        self.strides = [patch_size] * len(out_indices)
        if list(out_indices) != sorted(set(out_indices)) or out_indices[-1] != self.num_layers - 1:
            raise ValueError(
                f'DINOv2 out_indices={tuple(out_indices)} must ascend and end with the last layer, '
                f'{self.num_layers - 1}: layers after it would get no gradient'
            )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps (B, C, ceil(H/p), ceil(W/p)), one per ``out_indices``, for images (B, 3, H,
        W).

        The patch embedding pads with zeros at the bottom and right to whole patches of side p.
        """
        tokens, grid = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        positions = resize_pos_embed(
            self.pos_embed,
            self.patch_resolution,
            grid,
            mode=self.interpolate_mode,
            num_extra_tokens=self.num_extra_tokens,
        )
        tokens = self.drop_after_pos(tokens + positions)
        maps = []
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens)
            if index in self.out_indices:
                maps.append(self._format_output(self.ln1(tokens), grid))
        return tuple(maps)

    def train(self, mode: bool = True) -> 'DINOv2':
        super().train(mode)
        return self  # mmpretrain's returns None, so that model.eval() could not be chained

    def init_weights(self) -> None:
        """Random weights, or those of the file in ``init_cfg`` (see ``load_pretrained``)."""
        _, pretrained = split_init_cfg(self.init_cfg)
        if pretrained:
            self.load_pretrained(pretrained[-1]['checkpoint'], pretrained[-1].get('prefix', ''))
            self._is_init = True
        else:
            super().init_weights()

    def load_pretrained(self, path: str, prefix: str = '') -> None:
        """Fill every parameter from a file in Meta's, Hugging Face's or our own key layout.

        A position embedding for another image size is interpolated to ``img_size``.

        Args:
            path: of the file, or a name on Hugging Face, such as ``facebook/dinov2-small``.
            prefix: of the encoder's names in the file, see ``read_encoder_file``.

        Raises:
            CASTError: the file is missing or unreadable, leaves a parameter unfilled, has one of
                another shape, or has any that this network lacks (the mask token excepted).
        """
        state = convert_dinov2_state_dict(read_encoder_file(path, prefix, WEIGHTS_SOURCE))
        if 'register_tokens' in state:
            raise CASTError(
                f'{path} is a DINOv2 with register tokens: set backbone to '
                "dict(type='TimmEncoder', name='vit_small_patch14_reg4_dinov2'), or use "
                f'{WEIGHTS_SOURCE}'
            )
        self._fit_pos_embed(state)
        mismatch = describe_mismatch(plain_state(self), state)
        if mismatch:
            raise CASTError(
                f'{path} does not fit this DINOv2 ({self.num_layers} layers of width '
                f'{self.embed_dims}): {mismatch}; set arch and patch_size to those of the file, or '
                f'use {WEIGHTS_SOURCE}'
            )
        self.load_state_dict(state)

    def _fit_pos_embed(self, state: dict[str, Tensor]) -> None:
        """Interpolate a position embedding (1, 1 + side * side, C) of another grid, if it has that
        shape.
        """
        positions = state.get('pos_embed')
        if positions is None or positions.ndim != 3:
            return
        side = round((positions.shape[1] - 1) ** 0.5)
        if side * side + 1 == positions.shape[1]:
            state['pos_embed'] = resize_pos_embed(
                positions,
                (side, side),
                self.patch_resolution,
                self.interpolate_mode,
                self.num_extra_tokens,
            )


def convert_dinov2_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2 weights in Meta's or Hugging Face's key layout, under our names; ours and unknown ones
    stay.

    The mask token is dropped. Hugging Face keys may start with ``dinov2.``.
    """
    state = hugging_face_to_meta(state)
    state.pop('mask_token', None)
    return _rename(state, _META_TO_OWN)


def hugging_face_to_meta(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Transformers' DINOv2, with or without registers, under Meta's names; unknown ones stay."""
    state = {key.removeprefix('dinov2.'): value for key, value in state.items()}
    return _rename(_join_qkv(_rename(state, _V5_TO_FILES)), _HF_TO_META)


def _join_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put Hugging Face's query, key and value (C, C) of a layer into one matrix (3C, C), in this
    order.
    """
    pattern = re.compile(
        r'encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)'
    )
    joined = {}
    for key, value in state.items():
        match = pattern.fullmatch(key)
        if match is None:
            joined[key] = value
            continue
        parts = [
            state.get(key.replace(f'.{match[2]}.', f'.{part}.'))
            for part in ('query', 'key', 'value')
        ]
        if all(part is not None for part in parts):
            joined[f'blocks.{match[1]}.attn.qkv.{match[3]}'] = torch.cat(parts)
        else:  # keep the lone key, so that the check names it
            joined[key] = value
    return joined


def _rename(state: dict[str, Tensor], rules: list[tuple[str, str]]) -> dict[str, Tensor]:
    """Apply the first rule that matches each key."""
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            if re.match(pattern, key):
                key = re.sub(pattern, replacement, key)
                break
        renamed[key] = value
    return renamed
