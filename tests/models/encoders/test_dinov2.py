"""DINOv2 against transformers' implementation; the key lists of the public files are written out by
hand.
"""

import pytest
import torch
from exploit import Exploit
from safetensors.torch import save_file
from torch.nn import functional as F

from mmcast.errors import CASTError
from mmcast.models.encoders.dinov2 import DINOv2
from mmcast.registry import MODELS

TINY = dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32)


def meta_shapes(width=384, layers=12, positions=1370, patch=14):
    """Names and shapes in dinov2_vits14_pretrain.pth (175 in all)."""
    shapes = {
        'cls_token': (1, 1, width),
        'pos_embed': (1, positions, width),
        'mask_token': (1, width),
        'patch_embed.proj.weight': (width, 3, patch, patch),
        'patch_embed.proj.bias': (width,),
        'norm.weight': (width,),
        'norm.bias': (width,),
    }
    for i in range(layers):
        block = {
            'norm1.weight': (width,),
            'norm1.bias': (width,),
            'attn.qkv.weight': (3 * width, width),
            'attn.qkv.bias': (3 * width,),
            'attn.proj.weight': (width, width),
            'attn.proj.bias': (width,),
            'ls1.gamma': (width,),
            'norm2.weight': (width,),
            'norm2.bias': (width,),
            'mlp.fc1.weight': (4 * width, width),
            'mlp.fc1.bias': (4 * width,),
            'mlp.fc2.weight': (width, 4 * width),
            'mlp.fc2.bias': (width,),
            'ls2.gamma': (width,),
        }
        shapes.update({f'blocks.{i}.{name}': shape for name, shape in block.items()})
    return shapes


def random_meta_weights(**kwargs):
    """Weights in which every tensor matters: no zero bias, no unit scale, no constant position
    embedding.
    """
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in meta_shapes(**kwargs).items():
        scale = 0.04 if name.endswith('weight') and len(shape) > 1 else 0.3
        offset = 1.0 if name.endswith(('norm.weight', 'norm1.weight', 'norm2.weight')) else 0.0
        weights[name] = offset + scale * torch.randn(shape, generator=generator)
    return weights


def to_hugging_face(meta, layers=12):
    """The same weights under the names of facebook/dinov2-small."""
    hf = {
        'embeddings.cls_token': meta['cls_token'],
        'embeddings.mask_token': meta['mask_token'],
        'embeddings.position_embeddings': meta['pos_embed'],
        'embeddings.patch_embeddings.projection.weight': meta['patch_embed.proj.weight'],
        'embeddings.patch_embeddings.projection.bias': meta['patch_embed.proj.bias'],
        'layernorm.weight': meta['norm.weight'],
        'layernorm.bias': meta['norm.bias'],
    }
    for i in range(layers):
        to, of = f'encoder.layer.{i}.', f'blocks.{i}.'
        for kind in ('weight', 'bias'):
            query, key, value = meta[f'{of}attn.qkv.{kind}'].chunk(3)
            hf[f'{to}attention.attention.query.{kind}'] = query.clone()
            hf[f'{to}attention.attention.key.{kind}'] = key.clone()
            hf[f'{to}attention.attention.value.{kind}'] = value.clone()
            hf[f'{to}attention.output.dense.{kind}'] = meta[f'{of}attn.proj.{kind}']
            for name in ('norm1', 'norm2', 'mlp.fc1', 'mlp.fc2'):
                hf[f'{to}{name}.{kind}'] = meta[f'{of}{name}.{kind}']
        hf[f'{to}layer_scale1.lambda1'] = meta[f'{of}ls1.gamma']
        hf[f'{to}layer_scale2.lambda1'] = meta[f'{of}ls2.gamma']
    return hf


def load(path, **kwargs):
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    model = MODELS.build(dict(type='DINOv2', init_cfg=init_cfg, **kwargs))
    model.init_weights()
    return model.eval()


@pytest.fixture(scope='module')
def meta_weights():
    return random_meta_weights()


@pytest.fixture(scope='module')
def reference(meta_weights, tmp_path_factory):
    """Transformers' DINOv2-small with the same weights, as a function from images to four
    normalised maps.
    """
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
    )
    folder = tmp_path_factory.mktemp('dinov2-small')
    config.save_pretrained(folder)
    save_file(to_hugging_face(meta_weights), folder / 'model.safetensors', dict(format='pt'))
    model = Dinov2Model.from_pretrained(folder).eval()  # the names of the file are older

    @torch.no_grad()
    def features(images):
        hidden = model(images, output_hidden_states=True).hidden_states
        rows, columns = images.shape[2] // 14, images.shape[3] // 14
        maps = [model.layernorm(hidden[i + 1])[:, 1:] for i in (2, 5, 8, 11)]
        return [m.transpose(1, 2).unflatten(2, (rows, columns)) for m in maps]

    return features


@pytest.fixture(scope='module')
def public_files(meta_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp('dinov2')
    hf = to_hugging_face(meta_weights)
    torch.save(meta_weights, folder / 'meta.pth')
    torch.save(hf, folder / 'hf.bin')
    save_file({key: value.contiguous() for key, value in hf.items()}, folder / 'hf.safetensors')
    torch.save({f'dinov2.{key}': value for key, value in hf.items()}, folder / 'hf_prefixed.bin')
    own = load(folder / 'meta.pth')
    torch.save(
        {'state_dict': {f'backbone.{key}': value for key, value in own.state_dict().items()}},
        folder / 'detector.pth',
    )
    return folder


@pytest.mark.parametrize('size', [(126, 126), (84, 154)])
def test_features_agree_with_transformers(public_files, reference, size):
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = load(public_files / 'meta.pth')(images)
    assert [tuple(m.shape) for m in maps] == [(2, 384, size[0] // 14, size[1] // 14)] * 4
    for ours, theirs in zip(maps, reference(images), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_other_sizes_are_padded_at_the_bottom_and_right(public_files, reference):
    images = torch.randn(1, 3, 75, 100, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        maps = load(public_files / 'meta.pth')(images)
    assert maps[0].shape[2:] == (6, 8)
    for ours, theirs in zip(maps, reference(F.pad(images, (0, 12, 0, 9))), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize('name', ['hf.bin', 'hf.safetensors', 'hf_prefixed.bin'])
def test_every_layout_gives_the_same_weights(public_files, name):
    expected, found = (
        load(public_files / 'meta.pth').state_dict(),
        load(public_files / name).state_dict(),
    )
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


@pytest.mark.parametrize('options', [{}, dict(prefix='backbone')])
def test_own_weights_load_out_of_a_detector(public_files, options):
    path = str(public_files / 'detector.pth')
    model = DINOv2(init_cfg=dict(type='Pretrained', checkpoint=path, **options))
    model.init_weights()
    expected = load(public_files / 'meta.pth').state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_position_embedding_of_another_grid_is_interpolated_when_loading(tmp_path):
    weights = random_meta_weights(width=16, layers=4, positions=26)
    torch.save(weights, tmp_path / 'weights.pth')
    model = load(
        tmp_path / 'weights.pth',
        arch=TINY | dict(feedforward_channels=64),
        img_size=112,
        out_indices=(0, 1, 2, 3),
    )
    grid = weights['pos_embed'][:, 1:].transpose(1, 2).unflatten(2, (5, 5))
    expected = F.interpolate(grid, size=(8, 8), mode='bicubic').flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.pos_embed[:, 1:].detach(), expected)
    torch.testing.assert_close(model.pos_embed[:, :1].detach(), weights['pos_embed'][:, :1])


@pytest.mark.parametrize(
    'break_weights, message',
    [
        (lambda w: w.pop('blocks.7.ls2.gamma'), r'missing: layers\.7\.ffn\.gamma2\.weight'),
        (
            lambda w: w.update({'norm.weight': torch.zeros(192)}),
            r'shape: ln1\.weight is \(192,\), needs \(384',
        ),
        (lambda w: w.update({'head.weight': torch.zeros(2)}), r'unexpected: head\.weight'),
        (
            lambda w: w.update({'register_tokens': torch.zeros(1, 4, 384)}),
            'register tokens: set backbone to',
        ),
        (
            lambda w: w.update({'pos_embed': torch.zeros(1, 1371, 384)}),
            r'shape: pos_embed is \(1, 1371, 384\)',
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(meta_weights, tmp_path, break_weights, message):
    weights = dict(meta_weights)
    break_weights(weights)
    torch.save(weights, tmp_path / 'broken.pth')
    with pytest.raises(CASTError, match=message) as error:
        load(tmp_path / 'broken.pth')
    assert 'broken.pth' in str(error.value) and '\n' not in str(error.value)


def test_half_of_query_key_value_is_named(meta_weights, tmp_path):
    weights = to_hugging_face(meta_weights)
    del weights['encoder.layer.3.attention.attention.key.bias']
    torch.save(weights, tmp_path / 'broken.bin')
    with pytest.raises(CASTError, match=r'missing: layers\.3\.attn\.qkv\.bias'):
        load(tmp_path / 'broken.bin')


def test_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(CASTError, match=r'nothing\.pth not found; download https://dl\.fbaipublic'):
        load(tmp_path / 'nothing.pth')


def test_a_file_that_runs_code_is_refused(tmp_path):
    torch.save({'cls_token': Exploit(tmp_path / 'ran')}, tmp_path / 'evil.pth')
    with pytest.raises(CASTError, match=r'evil\.pth holds pickled code \(io\.open\)'):
        load(tmp_path / 'evil.pth')
    assert not (tmp_path / 'ran').exists()


def test_gradient_reaches_every_parameter():
    model = DINOv2(arch=TINY, img_size=56, out_indices=(0, 1, 2, 3))
    model.init_weights()
    images = torch.randn(1, 3, 60, 40, generator=torch.Generator().manual_seed(3))
    sum(m.square().sum() + (m * torch.randn_like(m)).sum() for m in model(images)).backward()
    without = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert without == []


@pytest.mark.parametrize('out_indices', [(0, 1, 2), (0, 1, 2, 4), (3, 2, 1, 0), (0, 0, 1, 3)])
def test_unfit_out_indices_are_refused(out_indices):
    with pytest.raises(ValueError, match='out_indices'):
        DINOv2(arch=TINY, img_size=56, out_indices=out_indices)


def test_layer_depth_for_layer_wise_learning_rates():
    model = DINOv2(arch=TINY, img_size=56, out_indices=(0, 1, 2, 3))
    names = ('pos_embed', 'layers.2.attn.qkv.weight', 'ln1.weight')
    assert set(names) < dict(model.named_parameters()).keys()
    depths = [model.get_layer_depth(f'backbone.{name}', 'backbone.') for name in names]
    assert depths == [(0, 6), (3, 6), (5, 6)]
