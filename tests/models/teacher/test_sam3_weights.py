"""SAM3's weights in both public layouts, and what happens when one is missing or another
network's.
"""

import json
import re
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file
from tiny_sam3 import CLASSES, sam3, sam3_config
from transformers import Sam3Config, Sam3Model

from mmcast.errors import CASTError
from mmcast.models.teacher.sam3_weights import (
    convert_sam3_state_dict,
    prepare_sam3_weights,
    read_sam3,
)
from mmcast.models.weights.loading import load_weights
from mmcast.testing.models import build_model, build_without_memory

#: Names and shapes of Meta's network: ``build_sam3_image_model`` of facebookresearch/sam3 at commit
#: 99d02f2, built on the meta device. ``*32`` stands for the numbers 0 to 31.
LAYOUT = Path(__file__).parent / 'sam3_meta_layout.json'
#: Of the meta device's 840,376,374; SAM3 has 848 M with the tracker (facebookresearch/sam3).
PARAMETERS = 840_376_374


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    return sam3(tmp_path_factory.mktemp('source'))


@pytest.fixture(scope='module')
def state(source):
    return {key: value.clone() for key, value in source.network.state_dict().items()}


def meta_layout():
    layout = {}
    for name, shape in json.loads(LAYOUT.read_text()).items():
        count = re.search(r'\*(\d+)', name)
        for number in range(int(count[1])) if count else [0]:
            layout[re.sub(r'\*\d+', str(number), name)] = shape
    return layout


def to_meta(state):
    """A tiny network's weights in Meta's names: module by module, as in facebookresearch/sam3."""
    vit, clip = 'backbone.vision_backbone.', 'backbone.language_backbone.'
    modules = {
        'vision_encoder.backbone.embeddings.patch_embeddings.projection': (
            f'{vit}trunk.patch_embed.proj'
        ),
        'vision_encoder.backbone.layer_norm': f'{vit}trunk.ln_pre',
        'text_encoder.text_model.embeddings.token_embedding': f'{clip}encoder.token_embedding',
        'text_encoder.text_model.final_layer_norm': f'{clip}encoder.ln_final',
        'text_projection': f'{clip}resizer',
    }
    attentions = {}
    for i in range(3):
        ours, theirs = f'vision_encoder.backbone.layers.{i}.', f'{vit}trunk.blocks.{i}.'
        for name, its in dict(layer_norm1='norm1', layer_norm2='norm2').items():
            modules[ours + name] = theirs + its
        modules |= {f'{ours}mlp.fc{n}': f'{theirs}mlp.fc{n}' for n in (1, 2)}
        modules[f'{ours}attention.o_proj'] = f'{theirs}attn.proj'
        attentions[f'{ours}attention.'] = f'{theirs}attn.qkv.'
    upsampling = {0: ('dconv_2x2_0', 'dconv_2x2_1'), 1: ('dconv_2x2',)}
    for i in range(4):
        ours, theirs = f'vision_encoder.neck.fpn_layers.{i}.', f'{vit}convs.{i}.'
        modules |= {f'{ours}proj1': f'{theirs}conv_1x1', f'{ours}proj2': f'{theirs}conv_3x3'}
        for number, name in enumerate(upsampling.get(i, ())):
            modules[f'{ours}scale_layers.{2 * number}'] = theirs + name
    for i in range(2):
        ours = f'text_encoder.text_model.encoder.layers.{i}.'
        theirs = f'{clip}encoder.transformer.resblocks.{i}.'
        for name, its in {
            'layer_norm1': 'ln_1',
            'layer_norm2': 'ln_2',
            'mlp.fc1': 'mlp.c_fc',
            'mlp.fc2': 'mlp.c_proj',
            'self_attn.out_proj': 'attn.out_proj',
        }.items():
            modules[ours + name] = theirs + its
        attentions[f'{ours}self_attn.'] = f'{theirs}attn.in_proj_'
        transformer(modules, attentions, 'detr_encoder', f'transformer.encoder.layers.{i}.', i)
        decoder(modules, attentions, i)
    transformer(modules, attentions, 'geometry_encoder', 'geometry_encoder.encode.0.', 0)
    modules |= heads()
    attentions['mask_decoder.prompt_cross_attn.'] = 'segmentation_head.cross_attend_prompt.in_proj_'
    names = {
        'vision_encoder.backbone.embeddings.position_embeddings': f'{vit}trunk.pos_embed',
        'text_encoder.text_model.embeddings.position_embedding.weight': (
            f'{clip}encoder.positional_embedding'
        ),
        'text_encoder.text_projection.weight': f'{clip}encoder.text_projection',
        **{f'{ours}.{kind}': f'{its}.{kind}' for ours, its in modules.items() for kind in KINDS},
    }
    meta = {names[key]: value for key, value in state.items() if key in names}
    for ours, theirs in attentions.items():
        for kind in KINDS:
            parts = [state[f'{ours}{name}_proj.{kind}'] for name in 'qkv']
            meta[f'{theirs}{kind}'] = torch.cat(parts)
    assert len(meta) == len(state) - 2 * 2 * len(attentions)
    place = f'{vit}trunk.pos_embed'
    meta[place] = torch.cat([torch.ones_like(meta[place][:, :1]), meta[place]], dim=1)
    meta[f'{clip}encoder.text_projection'] = meta[f'{clip}encoder.text_projection'].T
    return meta


KINDS = ('weight', 'bias')


def transformer(modules, attentions, ours, theirs, i):
    """A layer of the encoders."""
    ours = f'{ours}.layers.{i}.'
    modules |= {f'{ours}layer_norm{n}': f'{theirs}norm{n}' for n in (1, 2, 3)}
    modules |= {f'{ours}mlp.fc{n}': f'{theirs}linear{n}' for n in (1, 2)}
    for name, its in dict(self_attn='self_attn', cross_attn='cross_attn_image').items():
        modules[f'{ours}{name}.o_proj'] = f'{theirs}{its}.out_proj'
        attentions[f'{ours}{name}.'] = f'{theirs}{its}.in_proj_'


def decoder(modules, attentions, i):
    """A layer of the decoder."""
    ours, theirs = f'detr_decoder.layers.{i}.', f'transformer.decoder.layers.{i}.'
    for name, its in dict(
        vision_cross_attn_layer_norm='norm1',
        self_attn_layer_norm='norm2',
        mlp_layer_norm='norm3',
        text_cross_attn_layer_norm='catext_norm',
    ).items():
        modules[ours + name] = theirs + its
    modules |= {f'{ours}mlp.fc{n}': f'{theirs}linear{n}' for n in (1, 2)}
    for name, its in dict(
        self_attn='self_attn', text_cross_attn='ca_text', vision_cross_attn='cross_attn'
    ).items():
        modules[f'{ours}{name}.o_proj'] = f'{theirs}{its}.out_proj'
        attentions[f'{ours}{name}.'] = f'{theirs}{its}.in_proj_'


def heads():
    """What is outside of layers."""
    ours, theirs = 'detr_decoder.', 'transformer.decoder.'
    modules = {
        f'{ours}output_layer_norm': f'{theirs}norm',
        f'{ours}presence_layer_norm': f'{theirs}presence_token_out_norm',
        'geometry_encoder.vision_layer_norm': 'geometry_encoder.img_pre_norm',
        'geometry_encoder.prompt_layer_norm': 'geometry_encoder.norm',
        'geometry_encoder.output_layer_norm': 'geometry_encoder.encode_norm',
        'dot_product_scoring.text_mlp_out_norm': 'dot_prod_scoring.prompt_mlp.out_norm',
        'dot_product_scoring.text_proj': 'dot_prod_scoring.prompt_proj',
        'dot_product_scoring.query_proj': 'dot_prod_scoring.hs_proj',
        'mask_decoder.instance_projection': 'segmentation_head.instance_seg_head',
        'mask_decoder.semantic_projection': 'segmentation_head.semantic_seg_head',
        'mask_decoder.prompt_cross_attn_norm': 'segmentation_head.cross_attn_norm',
        'mask_decoder.prompt_cross_attn.o_proj': 'segmentation_head.cross_attend_prompt.out_proj',
    }
    for name in ('query_embed', 'reference_points', 'presence_token'):
        modules[ours + name] = theirs + name
    for name in ('label_embed', 'cls_embed', 'final_proj', 'boxes_direct_project'):
        modules[f'geometry_encoder.{name}'] = f'geometry_encoder.{name}'
    for name in ('boxes_pool_project', 'boxes_pos_enc_project'):
        modules[f'geometry_encoder.{name}'] = f'geometry_encoder.{name}'
    for head, (its, number) in {
        f'{ours}box_head': (f'{theirs}bbox_embed', 3),
        f'{ours}presence_head': (f'{theirs}presence_token_head', 3),
        f'{ours}ref_point_head': (f'{theirs}ref_point_head', 2),
        f'{ours}box_rpb_embed_x': (f'{theirs}boxRPB_embed_x', 2),
        f'{ours}box_rpb_embed_y': (f'{theirs}boxRPB_embed_y', 2),
        'dot_product_scoring.text_mlp': ('dot_prod_scoring.prompt_mlp', 2),
    }.items():
        modules |= {f'{head}.layer{n + 1}': f'{its}.layers.{n}' for n in range(number)}
    for n in range(3):
        place = f'mask_decoder.mask_embedder.layers.{n}'
        modules[place] = f'segmentation_head.mask_predictor.mask_embed.layers.{n}'
        for name in ('conv_layers', 'norms'):
            place = f'pixel_decoder.{name}.{n}'
            modules[f'mask_decoder.{place}'] = f'segmentation_head.{place}'
    return modules


def test_parameters_are_the_published_ones(tmp_path):
    """Full size, on the meta device; so is the network of the shipped config."""
    with torch.device('meta'):
        network = Sam3Model(Sam3Config())
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS
    config = sam3_config(tmp_path)
    config.pop('network')
    model = build_without_memory(dict(config, image_size=1008))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS
    expected = {key: value.shape for key, value in network.state_dict().items()}
    found = {key: value.shape for key, value in model.network.state_dict().items()}
    assert found == expected


def test_metas_published_network_becomes_transformers_whole():
    """All names and shapes in full size; points prompt the tracker's network alone."""
    with torch.device('meta'):
        meta = {f'detector.{name}': torch.empty(shape) for name, shape in meta_layout().items()}
        expected = Sam3Model(Sam3Config()).state_dict()
    found = convert_sam3_state_dict(meta | {'tracker.maskmem_tpos_enc': torch.empty(7)})
    assert {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in expected.items()
    }


@pytest.mark.parametrize('prefix', ['', 'detector.'])
def test_metas_checkpoint_becomes_transformers(state, tmp_path, prefix):
    meta = {prefix + key: value for key, value in to_meta(state).items()}
    names = {re.sub(r'\d+', '', key.removeprefix(prefix)) for key in meta}
    known = {re.sub(r'\*?\d+', '', name) for name in meta_layout()}
    assert names <= known  # as Meta calls them
    others = {
        f'{prefix}geometry_encoder.points_pool_project.weight': torch.ones(1),
        f'{prefix}backbone.vision_backbone.trunk.blocks.0.attn.freqs_cis': torch.ones(
            1, dtype=torch.complex64
        ),
        'tracker.maskmem_tpos_enc': torch.ones(1),
    }
    torch.save(dict(model=meta | others), tmp_path / 'sam3.pt')
    read = read_sam3(tmp_path / 'sam3.pt')
    assert set(read) == set(state)
    assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize('layout', ['folder', 'file', 'video model'])
def test_transformers_checkpoints(source, state, tmp_path, layout):
    path = tmp_path
    if layout == 'folder':
        source.network.save_pretrained(tmp_path)
    elif layout == 'file':
        path = tmp_path / 'sam3.safetensors'
        save_file(state, path)
    else:  # as published: transformers' Sam3VideoModel
        video = {f'detector_model.{key}': value for key, value in state.items()}
        video |= {'tracker_model.x': torch.ones(1), 'tracker_neck.x': torch.ones(1)}
        save_file(video, tmp_path / 'model.safetensors')
    read = read_sam3(path)
    assert set(read) == set(state)
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_the_step_makes_a_checkpoint_that_loads(source, state, tmp_path):
    save_file(state, tmp_path / 'model.safetensors')
    config = sam3_config(tmp_path)
    made = prepare_sam3_weights(tmp_path / 'start', sam3=str(tmp_path), tokenizer=config.tokenizer)
    assert made == dict(
        teacher=str(tmp_path / 'start/teacher.pth'), tokenizer=config.tokenizer, dinov2=''
    )
    model = build_model(dict(config, classes=CLASSES), seed=5)
    load_weights(model, made['teacher'])
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    cast = build_model(dict(type='CASTDetector', detector=config), seed=6)
    load_weights(cast, made['teacher'])
    assert all(torch.equal(cast.detector.network.state_dict()[key], state[key]) for key in state)


def test_a_missing_file_says_where_it_is_and_what_its_gate_asks_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gate = r'huggingface.co/facebook/sam3 \(gated: accept the SAM License .* `hf auth login`\)'
    with pytest.raises(CASTError, match=f'weights/sam3.pt not found; download .*{gate}'):
        read_sam3('weights/sam3.pt')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(CASTError, match=f'neither model.safetensors nor sam3.pt.*{gate}'):
        read_sam3('empty')
    with mock.patch('huggingface_hub.hf_hub_download', side_effect=OSError('401 gated')):
        with pytest.raises(CASTError, match=f'SAM3 weights facebook/sam3: .*{gate}'):
            read_sam3('facebook/sam3')


def test_another_networks_file_is_refused(tmp_path):
    torch.save({'vision_encoder.backbone.layers.0.x': torch.ones(1)}, tmp_path / 'other.pth')
    with pytest.raises(CASTError, match='not a checkpoint of SAM3, it has nothing of .*detr_enc'):
        read_sam3(tmp_path / 'other.pth')
