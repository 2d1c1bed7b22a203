"""Networks of a few ten thousand parameters with the data flow of the real ones."""

from functools import partial
from typing import Any
from unittest import mock

import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

from mmcast.registry import MODELS


def tiny_student_config(
    num_classes: int = 3, num_queries: int = 6, num_points: int = 64
) -> ConfigDict:
    """A ``CASTMask2Former`` for images whose sides are multiples of 8; 100 k parameters."""
    dims = 16
    attention = dict(embed_dims=dims, num_heads=2)
    head = dict(
        type='CASTMask2FormerHead',
        in_channels=[dims] * 4,
        feat_channels=dims,
        out_channels=dims,
        num_things_classes=num_classes,
        num_stuff_classes=0,
        num_queries=num_queries,
        pixel_decoder=dict(type='DPTPixelDecoder', reassemble_channels=(8, 8, 8, 8), num_groups=4),
        positional_encoding=dict(num_feats=dims // 2, normalize=True),
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=3,
            init_cfg=None,
            layer_cfg=dict(
                self_attn_cfg=attention,
                cross_attn_cfg=attention,
                ffn_cfg=dict(embed_dims=dims, feedforward_channels=2 * dims),
            ),
        ),
        loss_cls=dict(
            type='CrossEntropyLoss',
            use_sigmoid=False,
            loss_weight=2.0,
            class_weight=[1.0] * num_classes + [0.1],
        ),
        loss_mask=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=5.0),
        loss_dice=dict(
            type='DiceLoss',
            use_sigmoid=True,
            activate=True,
            naive_dice=True,
            eps=1.0,
            loss_weight=5.0,
        ),
    )
    assigner = dict(
        type='HungarianAssigner',
        match_costs=[
            dict(type='ClassificationCost', weight=2.0),
            dict(type='CrossEntropyLossCost', weight=5.0, use_sigmoid=True),
            dict(type='DiceCost', weight=5.0, pred_act=True, eps=1.0),
        ],
    )
    return ConfigDict(
        type='CASTMask2Former',
        data_preprocessor=dict(
            type='DetDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            pad_size_divisor=8,
            pad_mask=True,
        ),
        backbone=dict(
            type='DINOv2',
            patch_size=8,
            img_size=64,
            out_indices=(0, 1, 2, 3),
            arch=dict(embed_dims=dims, num_layers=4, num_heads=2, feedforward_channels=2 * dims),
        ),
        panoptic_head=head,
        panoptic_fusion_head=dict(
            type='MaskFormerFusionHead',
            num_things_classes=num_classes,
            num_stuff_classes=0,
            loss_panoptic=None,
        ),
        train_cfg=dict(
            num_points=num_points,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
            assigner=assigner,
            sampler=dict(type='MaskPseudoSampler'),
        ),
        test_cfg=dict(
            panoptic_on=False, semantic_on=False, instance_on=True, max_per_image=num_queries
        ),
    )


def tiny_cast_config(
    semi_weight: float = 0.0,
    pixel_weight: float = 0.0,
    teacher: bool = False,
    **semi_train_cfg: Any,
) -> ConfigDict:
    """A ``CASTDetector`` around :func:`tiny_student_config`; the teacher, if any, has the same
    config.
    """
    return ConfigDict(
        type='CASTDetector',
        detector=tiny_student_config(),
        teacher=tiny_student_config() if teacher else None,
        pixel_contrast=dict(
            in_channels=16,
            embed_dims=8,
            loss_weight=pixel_weight,
            loss=dict(type='PixelContrastiveLoss', num_negatives=8),
        ),
        semi_train_cfg=dict(semi_weight=semi_weight, **semi_train_cfg),
    )


def build_model(config: dict, seed: int = 0) -> nn.Module:
    """Build from the registry as a Runner would, with seeded weights that went through
    :func:`randomize`.
    """
    init_default_scope('mmcast')
    torch.manual_seed(seed)
    return randomize(MODELS.build(config))


def build_without_memory(config: dict) -> nn.Module:
    """Build from the registry on the meta device, at any size."""
    init_default_scope('mmcast')
    # Swin reads its drop path rates from a tensor.
    with (
        torch.device('meta'),
        mock.patch.object(torch, 'linspace', partial(torch.linspace, device='cpu')),
    ):
        return MODELS.build(config)


@torch.no_grad()
def randomize(model: nn.Module) -> nn.Module:
    """Add noise to every parameter: fresh networks have zeros that hide terms and gradients."""
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model
