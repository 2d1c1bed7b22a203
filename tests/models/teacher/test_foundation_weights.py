"""The teacher's weights in every public layout, and what happens when one is missing or another
network's.
"""

from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file
from tiny_teacher import teacher, teacher_config

from mmcast.errors import CASTError
from mmcast.models.teacher.foundation_weights import (
    SAM2_SOURCE,
    find_weights,
    merge_teacher_weights,
    read_grounding_dino,
    read_sam2,
)
from mmcast.models.weights.loading import load_weights
from mmcast.testing.models import build_model

TWINS = (
    'shared_image_embedding.positional_embedding',
    'prompt_encoder.shared_embedding.positional_embedding',
)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    return teacher(tmp_path_factory.mktemp('source'))


@pytest.fixture(scope='module')
def sam2(source):
    return {key: value.clone() for key, value in source.sam2.model.state_dict().items()}


def to_meta(state):
    """Meta's names of the tiny SAM2: module by module as in facebookresearch/sam2, with some video
    memory.
    """
    blocks = range(5)
    names = {
        f'vision_encoder.backbone.{name}': f'image_encoder.trunk.{name}'
        for name in ('pos_embed', 'pos_embed_window')
    }
    names['no_memory_embedding'] = 'no_mem_embed'
    names['prompt_encoder.not_a_point_embed.weight'] = 'sam_prompt_encoder.not_a_point_embed.weight'
    names['prompt_encoder.no_mask_embed.weight'] = 'sam_prompt_encoder.no_mask_embed.weight'
    names[TWINS[1]] = 'sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix'
    for token in ('iou_token', 'mask_tokens', 'obj_score_token'):
        names[f'mask_decoder.{token}.weight'] = f'sam_mask_decoder.{token}.weight'
    modules = {
        'vision_encoder.backbone.patch_embed.projection': 'image_encoder.trunk.patch_embed.proj'
    }
    for i in blocks:
        for ours, theirs in {
            'layer_norm1': 'norm1',
            'layer_norm2': 'norm2',
            'attn.qkv': 'attn.qkv',
            'attn.proj': 'attn.proj',
            'mlp.proj_in': 'mlp.layers.0',
            'mlp.proj_out': 'mlp.layers.1',
            'proj': 'proj',
        }.items():
            modules[f'vision_encoder.backbone.blocks.{i}.{ours}'] = (
                f'image_encoder.trunk.blocks.{i}.{theirs}'
            )
    for i in range(4):
        modules[f'vision_encoder.neck.convs.{i}'] = f'image_encoder.neck.convs.{i}.conv'
    for ours, number in dict(conv1=0, layer_norm1=1, conv2=3, layer_norm2=4, conv3=6).items():
        modules[f'prompt_encoder.mask_embed.{ours}'] = (
            f'sam_prompt_encoder.mask_downscaling.{number}'
        )
    decoder, theirs = 'mask_decoder.', 'sam_mask_decoder.'
    attentions = {'final_attn_token_to_image': 'final_attn_token_to_image'}
    for i in range(2):
        for name in ('self_attn', 'cross_attn_token_to_image', 'cross_attn_image_to_token'):
            attentions[f'layers.{i}.{name}'] = f'layers.{i}.{name}'
        for number in range(1, 5):
            modules[f'{decoder}transformer.layers.{i}.layer_norm{number}'] = (
                f'{theirs}transformer.layers.{i}.norm{number}'
            )
        modules[f'{decoder}transformer.layers.{i}.mlp.proj_in'] = (
            f'{theirs}transformer.layers.{i}.mlp.layers.0'
        )
        modules[f'{decoder}transformer.layers.{i}.mlp.proj_out'] = (
            f'{theirs}transformer.layers.{i}.mlp.layers.1'
        )
    for name in attentions:
        for ours, his in dict(
            q_proj='q_proj', k_proj='k_proj', v_proj='v_proj', o_proj='out_proj'
        ).items():
            modules[f'{decoder}transformer.{name}.{ours}'] = f'{theirs}transformer.{name}.{his}'
    modules[f'{decoder}transformer.layer_norm_final_attn'] = f'{theirs}transformer.norm_final_attn'
    for ours, number in dict(upscale_conv1=0, upscale_layer_norm=1, upscale_conv2=3).items():
        modules[decoder + ours] = f'{theirs}output_upscaling.{number}'
    heads = [
        *(f'output_hypernetworks_mlps.{i}' for i in range(4)),
        'iou_prediction_head',
        'pred_obj_score_head',
    ]
    for head in heads:
        for ours, number in {'proj_in': 0, 'layers.0': 1, 'proj_out': 2}.items():
            modules[f'{decoder}{head}.{ours}'] = f'{theirs}{head}.layers.{number}'
    for name in ('conv_s0', 'conv_s1'):
        modules[decoder + name] = theirs + name
    for ours, his in modules.items():
        names |= {f'{ours}.{kind}': f'{his}.{kind}' for kind in ('weight', 'bias')}
    meta = {
        names[key]: value
        for key, value in state.items()
        if key not in (TWINS[0], 'prompt_encoder.point_embed.weight')
    }
    for i, row in enumerate(state['prompt_encoder.point_embed.weight']):
        meta[f'sam_prompt_encoder.point_embeddings.{i}.weight'] = row[None]
    video = (
        'maskmem_tpos_enc',
        'no_mem_pos_enc',
        'no_obj_ptr',
        'no_obj_embed_spatial',
        'mask_downsample.weight',
        'memory_attention.layers.0.norm1.weight',
        'memory_encoder.fuser.layers.0.gamma',
        'obj_ptr_proj.layers.0.weight',
        'obj_ptr_tpos_proj.weight',
    )
    return meta | {name: torch.ones(1) for name in video}


def test_metas_checkpoint_becomes_transformers(sam2, tmp_path):
    torch.save(dict(model=to_meta(sam2)), tmp_path / 'sam2.1.pt')
    read = read_sam2(tmp_path / 'sam2.1.pt')
    assert set(read) == set(sam2)
    assert all(torch.equal(read[key], sam2[key]) for key in sam2)


@pytest.mark.parametrize('layout', ['folder', 'file', 'folder of pickles', 'video model'])
def test_transformers_checkpoints(sam2, source, tmp_path, layout):
    path = tmp_path
    if layout == 'folder':
        source.sam2.model.save_pretrained(tmp_path)  # stores a shared tensor once
    elif layout == 'file':
        path = tmp_path / 'model.safetensors'
        save_file({key: value for key, value in sam2.items() if key != TWINS[1]}, path)
    elif layout == 'folder of pickles':
        torch.save(sam2, tmp_path / 'pytorch_model.bin')
    else:
        save_file(
            {key: value.clone() for key, value in sam2.items()}
            | {
                'memory_attention.layers.0.linear1.weight': torch.ones(1),
                'no_object_pointer': torch.ones(1),
                'memory_temporal_positional_encoding': torch.ones(1),
                'object_pointer_proj.proj_in.weight': torch.ones(1),
            },
            tmp_path / 'model.safetensors',
        )
    read = read_sam2(path)
    assert set(read) == set(sam2)
    assert all(torch.equal(read[key], sam2[key]) for key in sam2)


def test_a_name_on_hugging_face_is_downloaded(sam2, tmp_path):
    save_file({key: value.clone() for key, value in sam2.items()}, tmp_path / 'model.safetensors')
    with mock.patch(
        'huggingface_hub.hf_hub_download', return_value=str(tmp_path / 'model.safetensors')
    ) as download:
        assert set(read_sam2('facebook/sam2.1-hiera-large')) == set(sam2)
    assert download.call_args.args == ('facebook/sam2.1-hiera-large', 'model.safetensors')


@pytest.mark.parametrize(
    'name', ['weights/sam2.1_hiera_large.pt', 'weights/sam2.1-hiera-large', './somewhere']
)
def test_what_looks_like_a_path_is_never_looked_for_on_hugging_face(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with mock.patch('huggingface_hub.hf_hub_download', side_effect=AssertionError):
        with pytest.raises(
            CASTError, match=r'download https://dl.fbaipublicfiles.com/.*sam2.1_hiera_large.pt'
        ):
            read_sam2(name)


def test_without_network_the_message_says_where_to_get_it():
    with mock.patch('huggingface_hub.hf_hub_download', side_effect=OSError('no network')):
        with pytest.raises(
            CASTError, match='facebook/sam2.1-hiera-large.*download https://dl.fbaipublicfiles'
        ):
            find_weights('facebook/sam2.1-hiera-large', 'SAM2', SAM2_SOURCE)


def test_an_empty_folder_says_what_belongs_there(tmp_path):
    with pytest.raises(
        CASTError, match='neither model.safetensors nor pytorch_model.bin; download'
    ):
        read_sam2(tmp_path)


# mmdet's checkpoint and both halves together


@pytest.fixture
def files(source, sam2, tmp_path):
    """Both halves as they are published, and the language model's folder."""
    grounding_dino = dict(source.grounding_dino.state_dict())
    # An older transformers stored this too.
    grounding_dino['language_model.language_backbone.body.model.embeddings.position_ids'] = (
        torch.arange(64)[None]
    )
    torch.save(dict(meta=dict(epoch=1), state_dict=grounding_dino), tmp_path / 'grounding_dino.pth')
    torch.save(dict(model=to_meta(sam2)), tmp_path / 'sam2.1.pt')
    return dict(
        grounding_dino=str(tmp_path / 'grounding_dino.pth'),
        sam2=str(tmp_path / 'sam2.1.pt'),
        language_model=teacher_config(tmp_path).grounding_dino.language_model.name,
    )


def test_two_downloads_become_one_checkpoint_of_the_whole_teacher(source, files, tmp_path):
    outputs = merge_teacher_weights(tmp_path / 'start', **files)
    model = build_model(dict(type='CASTDetector', detector=teacher_config(tmp_path)), seed=1)
    load_weights(model, outputs['teacher'])  # strict but for what only training has
    for key, value in source.state_dict().items():
        assert torch.equal(model.detector.state_dict()[key], value), key
    assert outputs['language_model'] == files['language_model']


@pytest.mark.parametrize(
    'missing, message',
    [
        (
            'grounding_dino',
            'nowhere.pth not found; download https://download.openmmlab.com/.*swin-l_pretrain_all',
        ),
        ('sam2', 'nowhere.pth not found; download https://dl.fbaipublicfiles.com'),
        ('dinov2', 'nowhere.pth not found; download https://dl.fbaipublicfiles.com/dinov2'),
        (
            'language_model',
            'download vocab.txt and config.json from https://huggingface.co/google-bert',
        ),
    ],
)
def test_a_missing_download_is_named_with_source_and_place_before_anything_is_written(
    files, tmp_path, missing, message
):
    with pytest.raises(CASTError, match=message):
        merge_teacher_weights(tmp_path / 'start', **{**files, missing: 'weights/nowhere.pth'})
    assert not (tmp_path / 'start').exists()


def test_the_other_halfs_checkpoint_is_refused(files, tmp_path):
    with pytest.raises(
        CASTError,
        match="sam2.1.pt is not a checkpoint of mmdet's Grounding-DINO, it has nothing of",
    ):
        read_grounding_dino(files['sam2'])
    with pytest.raises(
        CASTError, match='grounding_dino.pth is not a checkpoint of SAM2.1, it has nothing of'
    ):
        read_sam2(files['grounding_dino'])
    plain = {'backbone.conv1.weight': torch.ones(1), 'bbox_head.fc.weight': torch.ones(1)}
    torch.save(dict(state_dict=plain), tmp_path / 'detr.pth')
    with pytest.raises(CASTError, match='nothing of language_model'):
        read_grounding_dino(tmp_path / 'detr.pth')


def test_a_checkpoint_of_another_size_names_the_half(source, files, tmp_path):
    """Swin-T in place of Swin-L, or SAM2 tiny in place of large."""
    config = teacher_config(tmp_path)
    config.sam2.encoder['hidden_size'] = 16
    outputs = merge_teacher_weights(tmp_path / 'start', **files)
    with pytest.raises(
        CASTError,
        match='sam2.model.vision_encoder.*another architecture|another architecture.*sam2',
    ):
        load_weights(build_model(config), outputs['teacher'])


def test_a_cut_off_download_is_refused(files, tmp_path):
    path = tmp_path / 'cut.pt'
    path.write_bytes(Path(files['sam2']).read_bytes()[:1000])
    with pytest.raises(CASTError, match='cut.pt is cut short or damaged'):
        read_sam2(path)
