"""The networks of the foundation pipelines in miniature, and their downloads."""

import torch
from tiny_sam3 import sam3
from tiny_teacher import teacher

from mmcast.models.encoders.dinov2 import DINOv2
from mmcast.testing.teacher import write_tiny_bert, write_tiny_clip

ARCH = dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32)
ATTENTION = dict(embed_dims=16, num_heads=2)
LAYER = dict(
    self_attn_cfg=ATTENTION,
    cross_attn_cfg=ATTENTION,
    ffn_cfg=dict(embed_dims=16, feedforward_channels=32),
)
HEAD = dict(
    in_channels=[16] * 4,
    feat_channels=16,
    out_channels=16,
    num_queries=10,
    pixel_decoder=dict(reassemble_channels=(8, 8, 8, 8), num_groups=4, fine_channels=8),
    positional_encoding=dict(num_feats=8),
    transformer_decoder=dict(num_layers=3, layer_cfg=LAYER),
)
STUDENT = dict(panoptic_head=HEAD, train_cfg=dict(num_points=64), test_cfg=dict(max_per_image=10))


def backbone(init_cfg):
    return dict(
        _delete_=True,
        type='DINOv2',
        arch=ARCH,
        patch_size=14,
        img_size=70,
        out_indices=(0, 1, 2, 3),
        init_cfg=init_cfg,
    )


def write_downloads(folder):
    """Weights as a person has them after downloading, by the names of the pipelines' variables."""
    source = teacher(folder)
    torch.save(dict(state_dict=source.grounding_dino.state_dict()), folder / 'grounding_dino.pth')
    source.sam2.model.save_pretrained(folder / 'sam2')
    torch.save(
        DINOv2(arch=ARCH, img_size=70, out_indices=(0, 1, 2, 3)).state_dict(), folder / 'dinov2.pth'
    )
    tokenizer = write_tiny_clip(folder / 'sam3')
    sam3(folder).network.save_pretrained(folder / 'sam3')
    return dict(
        sam3=str(folder / 'sam3'),
        tokenizer=tokenizer,
        grounding_dino=str(folder / 'grounding_dino.pth'),
        sam2=str(folder / 'sam2'),
        language_model=write_tiny_bert(folder / 'bert'),
        dinov2=str(folder / 'dinov2.pth'),
    )
