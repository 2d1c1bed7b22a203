"""Output sizes of the DPT pixel decoder for every kind of encoder, and what it refuses."""

import pytest
import torch

from mmcast.models import DPTPixelDecoder

SMALL = dict(feat_channels=8, out_channels=6, num_groups=4)


def decode(sizes, scales, in_channels=(5, 6, 7, 8)):
    decoder = DPTPixelDecoder(
        in_channels, reassemble_channels=(8, 12, 16, 20), scales=scales, **SMALL
    )
    feats = [torch.randn(2, channels, *size) for channels, size in zip(in_channels, sizes)]
    mask_feature, memories = decoder(feats)
    return tuple(mask_feature.shape), [tuple(memory.shape) for memory in memories]


@pytest.mark.parametrize('height, width', [(4, 6), (5, 7), (1, 3)])
def test_vit_grids_of_even_and_odd_size(height, width):
    mask_feature, memories = decode([(height, width)] * 4, (4, 2, 1, 0.5))
    assert mask_feature == (2, 6, 4 * height, 4 * width)
    assert memories == [
        (2, 8, (height + 1) // 2, (width + 1) // 2),
        (2, 8, height, width),
        (2, 8, 2 * height, 2 * width),
    ]


def test_pyramid_of_a_cnn_with_odd_levels():
    sizes = [(15, 22), (8, 11), (4, 6), (2, 3)]
    mask_feature, memories = decode(sizes, (1, 1, 1, 1))
    assert mask_feature == (2, 6, 15, 22)
    assert memories == [(2, 8, *size) for size in sizes[:0:-1]]


def test_every_input_level_and_every_weight_counts():
    """For the mask features alone, which all levels have to reach through the fusion."""
    torch.manual_seed(0)
    decoder = DPTPixelDecoder((4, 4, 4, 4), reassemble_channels=(8, 8, 8, 8), **SMALL)
    decoder.init_weights()
    feats = [torch.randn(1, 4, 3, 5, requires_grad=True) for _ in range(4)]
    decoder(feats)[0].square().sum().backward()
    assert all(feat.grad.abs().sum() > 0 for feat in feats)
    assert [
        name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()
    ] == []


def test_wrong_number_of_levels_is_refused():
    with pytest.raises(ValueError, match='one entry a level, got 4, 3 and 4'):
        DPTPixelDecoder((4, 4, 4, 4), reassemble_channels=(8, 8, 8), **SMALL)


def test_wrong_number_of_feature_maps_is_refused():
    decoder = DPTPixelDecoder((4, 4, 4, 4), reassemble_channels=(8, 8, 8, 8), **SMALL)
    with pytest.raises(ValueError, match='3 feature maps for 4 levels'):
        decoder([torch.randn(1, 4, 3, 5)] * 3)


def test_unknown_scale_is_refused():
    with pytest.raises(ValueError, match='scale 3 is not one of 4, 2, 1, 0.5'):
        DPTPixelDecoder(
            (4, 4, 4, 4), reassemble_channels=(8, 8, 8, 8), scales=(4, 3, 1, 0.5), **SMALL
        )


def test_a_narrow_finest_level_changes_the_mask_features_path_alone():
    torch.manual_seed(0)
    options = dict(reassemble_channels=(8, 8, 8, 8), fine_channels=4, **SMALL)
    decoder = DPTPixelDecoder((4, 4, 4, 4), **options)
    feats = [torch.randn(1, 4, 3, 5) for _ in range(4)]
    mask_feature, memories = decoder(feats)
    assert mask_feature.shape == (1, 6, 12, 20) and [memory.shape[1] for memory in memories] == [
        8,
        8,
        8,
    ]
    mask_feature.square().sum().backward()
    assert [
        name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()
    ] == []
    wide = DPTPixelDecoder((4, 4, 4, 4), **dict(options, fine_channels=None))
    assert sum(p.numel() for p in decoder.parameters()) < sum(p.numel() for p in wide.parameters())
    with pytest.raises(
        ValueError, match='fine_channels=4 leaves 3 maps of 8 channels; num_outs=4 asks for more'
    ):
        DPTPixelDecoder((4, 4, 4, 4), num_outs=4, **options)
