"""What ``init_cfg`` says is what a module starts with, whatever its own initialisation draws."""

import copy

import pytest
import torch
from mmengine.registry import init_default_scope
from tiny_teacher import teacher_config
from torch import nn

from mmcast.registry import MODELS
from mmcast.testing.models import build_model, tiny_cast_config, tiny_student_config

DPT = dict(
    type='DPTPixelDecoder',
    in_channels=(4, 4, 4, 4),
    reassemble_channels=(8, 8, 8, 8),
    feat_channels=8,
    out_channels=6,
    num_groups=4,
)


def head_config():
    student = tiny_student_config()
    return dict(student.panoptic_head, train_cfg=student.train_cfg, test_cfg=student.test_cfg)


CONFIGS = dict(
    dpt=lambda folder: DPT,
    dinov2=lambda folder: tiny_student_config().backbone,
    head=lambda folder: head_config(),
    student=lambda folder: tiny_student_config(),
    cast=lambda folder: tiny_cast_config(teacher=True),
    grounding_dino=lambda folder: dict(teacher_config(folder).grounding_dino, classes=['a', 'b']),
    sam2=lambda folder: teacher_config(folder).sam2,
    grounded_sam=lambda folder: teacher_config(folder),
)


@pytest.mark.parametrize('as_list', [False, True], ids=['dict', 'list'])
@pytest.mark.parametrize('name', CONFIGS)
def test_a_module_starts_with_the_file_that_its_init_cfg_names(name, as_list, tmp_path):
    config, path = CONFIGS[name](tmp_path), str(tmp_path / 'weights.pth')
    saved = build_model(copy.deepcopy(config), seed=1).state_dict()
    torch.save(dict(state_dict=saved), path)
    init_cfg = dict(type='Pretrained', checkpoint=path)
    model = MODELS.build(dict(config, init_cfg=[init_cfg] if as_list else init_cfg))
    model.init_weights()
    changed = [key for key, value in model.state_dict().items() if not value.equal(saved[key])]
    assert changed == []


@pytest.mark.parametrize('config', [DPT, head_config()], ids=['dpt', 'head'])
def test_a_constant_in_init_cfg_is_what_its_layers_hold(config):
    init_default_scope('mmcast')
    init_cfg = dict(type='Constant', layer='Embedding' if 'num_queries' in config else 'Conv2d')
    model = MODELS.build(dict(config, init_cfg=dict(init_cfg, val=0.5)))
    model.init_weights()
    kind = nn.Embedding if 'num_queries' in config else nn.Conv2d
    # Those of ConvModule draw their own weights after that, as everywhere in MMEngine.
    layers = [
        part
        for name, part in model.named_modules()
        if isinstance(part, kind) and not name.endswith('.conv')
    ]
    assert layers and all((layer.weight == 0.5).all() for layer in layers)


def test_without_init_cfg_every_convolution_of_the_pixel_decoder_is_kaimings():
    torch.manual_seed(0)
    model = build_model(dict(DPT, feat_channels=32))
    model.init_weights()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            bound = (3 / layer.weight[0].numel()) ** 0.5
            assert 0.8 * bound < layer.weight.abs().max() <= bound
            assert layer.bias is None or not layer.bias.any()
