"""A student with mmdet's deformable pixel decoder in ONNX: the values of torch, at any size."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from mmengine.config import Config

from mmcast.deploy.agreement import run_torch
from mmcast.deploy.deformable import decode_deformable
from mmcast.deploy.onnx_export import to_onnx
from mmcast.testing.models import build_model

CONFIG = Path(__file__).parents[2] / 'configs/_base_/models/mask2former_r50_coco.py'
ATTENTION = dict(embed_dims=16, num_heads=2)
LAYER = dict(self_attn_cfg=ATTENTION, ffn_cfg=dict(embed_dims=16, feedforward_channels=32))
NARROW = dict(
    backbone=dict(depth=18, base_channels=8, stem_channels=8),
    panoptic_head=dict(
        in_channels=[8, 16, 32, 64],
        feat_channels=16,
        out_channels=16,
        num_queries=7,
        pixel_decoder=dict(
            norm_cfg=dict(num_groups=4),
            positional_encoding=dict(num_feats=8),
            encoder=dict(num_layers=1, layer_cfg=LAYER),
        ),
        positional_encoding=dict(num_feats=8),
        transformer_decoder=dict(num_layers=1, layer_cfg=dict(LAYER, cross_attn_cfg=ATTENTION)),
    ),
)


@pytest.fixture(scope='module')
def network():
    config = Config.fromfile(CONFIG)
    config.merge_from_dict(dict(model=dict(detector=NARROW)))
    return build_model(config.model.detector).eval()


@pytest.mark.parametrize('size', [(64, 96), (96, 32)])
@torch.no_grad()
def test_maps_are_those_of_mmdets_pixel_decoder(network, size):
    features = network.extract_feat(torch.randn(2, 3, *size))
    decoder = network.panoptic_head.pixel_decoder
    masks, memories = decode_deformable(decoder, features)
    expected, others = decoder(features)
    torch.testing.assert_close(masks, expected, rtol=1e-5, atol=1e-5)
    assert len(memories) == len(others) == 3
    for memory, other in zip(memories, others):
        torch.testing.assert_close(memory, other, rtol=1e-5, atol=1e-5)


def test_onnxruntime_finds_what_torch_finds_at_sizes_that_were_not_exported(network):
    session = onnxruntime.InferenceSession(to_onnx(network).SerializeToString())
    generator = np.random.default_rng(0)
    for size in ((64, 96), (101, 43)):
        images = generator.integers(0, 256, (2, *size, 3), dtype=np.uint8)
        found = session.run(None, dict(images=images, score_threshold=np.zeros((), np.float32)))
        expected = [each[each.scores > 0] for each in run_torch(network, images)]
        scores = np.concatenate([each.scores for each in expected])
        assert 0 < len(scores) == len(found[2])
        assert np.allclose(np.sort(found[2]), np.sort(scores), atol=1e-5)
        pixels = sum(int(each.masks.sum()) for each in expected)
        assert found[1].shape[1:] == size and abs(int(found[1].sum()) - pixels) <= 1e-3 * pixels
