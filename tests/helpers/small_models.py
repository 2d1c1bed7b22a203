"""The models of the shipped configs, what is large in miniature, and batches for them."""

from pathlib import Path

from mmengine.config import Config

from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model
from mmcast.testing.teacher import (
    shrink_sam3,
    shrink_teacher,
    write_tiny_bert,
    write_tiny_clip,
)

CONFIGS = Path(__file__).parents[2] / 'configs'
#: A full-size student in miniature: same patch size, scales, losses and queries, less width and
#: depth.
ATTENTION = dict(embed_dims=16, num_heads=2)
SMALL = dict(
    backbone=dict(
        arch=dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32),
        img_size=70,
        out_indices=(0, 1, 2, 3),
    ),
    panoptic_head=dict(
        in_channels=[16] * 4,
        feat_channels=16,
        out_channels=16,
        pixel_decoder=dict(reassemble_channels=(8, 8, 8, 8), num_groups=4, fine_channels=8),
        positional_encoding=dict(num_feats=8),
        transformer_decoder=dict(
            num_layers=3,
            layer_cfg=dict(
                self_attn_cfg=ATTENTION,
                cross_attn_cfg=ATTENTION,
                ffn_cfg=dict(embed_dims=16, feedforward_channels=32),
            ),
        ),
    ),
)
#: Swin-L in miniature, in a Mask2Former with mmdet's own pixel decoder.
SWIN = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4)
SMALL_SWIN = dict(
    backbone=SWIN,
    panoptic_head=dict(
        SMALL['panoptic_head'],
        in_channels=[8, 16, 32, 64],
        pixel_decoder=dict(
            norm_cfg=dict(num_groups=4),
            positional_encoding=dict(num_feats=8),
            encoder=dict(
                num_layers=1,
                layer_cfg=dict(
                    self_attn_cfg=ATTENTION, ffn_cfg=dict(embed_dims=16, feedforward_channels=32)
                ),
            ),
        ),
    ),
)


#: ResNet-50 in miniature, likewise.
SMALL_RESNET = dict(
    SMALL_SWIN,
    backbone=dict(base_channels=8, stem_channels=8),
    panoptic_head=dict(SMALL_SWIN['panoptic_head'], in_channels=[32, 64, 128, 256]),
)


def without_pretrained(config):
    """Drop every ``init_cfg``, whose files are not there where tests run."""
    if isinstance(config, dict):
        return {
            key: without_pretrained(value) for key, value in config.items() if key != 'init_cfg'
        }
    return (
        [without_pretrained(value) for value in config]
        if isinstance(config, (list, tuple))
        else config
    )


def language_model(config, folder):
    """The files of a tiny one that knows the words of the config's classes."""
    words = {word for name in config.metainfo.classes for word in name.split()}
    return write_tiny_bert(folder, sorted(words))


def build(path, folder):
    """A config and its model, what is large in miniature; all boxes of a teacher count."""
    config = Config.fromfile(path)
    detector = config.model.detector
    channels = config.model.get('pixel_contrast') and config.model.pixel_contrast.in_channels
    if detector.type == 'GroundedSAM':
        config.model.detector = shrink_teacher(detector, language_model(config, folder))
        config.model.detector.grounding_dino.test_cfg.update(score_thr=0.0, max_per_img=5)
        channels = {1536: 64}.get(channels, channels)  # Swin's; SAM2's are the same in miniature
    elif detector.type == 'SAM3':
        config.model.detector = shrink_sam3(detector, write_tiny_clip(folder))
        config.model.detector.test_cfg.update(score_thr=0.0, max_per_img=5)
        channels = channels and 32
    elif detector.backbone.get('arch') == 'dinov2-small':
        detector.backbone.pop('arch')  # a name, which a dict cannot be merged into
        config.merge_from_dict(dict(model=dict(detector=SMALL)))
        channels = channels and 16
    elif detector.backbone.type == 'SwinTransformer':
        config.merge_from_dict(dict(model=dict(detector=SMALL_SWIN)))
        channels = channels and 64
    elif detector.backbone.type == 'ResNet' and detector.backbone.depth == 50:
        config.merge_from_dict(dict(model=dict(detector=SMALL_RESNET)))
        channels = channels and 256
    if channels:
        config.model.pixel_contrast.in_channels = channels
    return config, build_model(Config(without_pretrained(config.to_dict())).model)


def batch(config, size, sources=None):
    """A labeled image and one of every other source that the config's data have."""
    if sources is None:
        dataset = config.train_dataloader.dataset
        kinds = [part.type for part in dataset.get('datasets', [dataset])]
        others = dict(PseudoLabelDataset='pseudo', UnlabeledDataset='unlabeled')
        sources = ['labeled', *(others[kind] for kind in kinds if kind in others)]
    images, samples = make_samples([2, 1][: len(sources)], sources, size=size, num_classes=1)
    return dict(inputs=list((images * 50 + 120).clamp(0, 255).byte()), data_samples=samples)
