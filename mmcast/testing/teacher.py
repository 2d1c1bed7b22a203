"""The foundation teacher in miniature, and the files that its weights come in."""

import json
import string
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

BERT_CONFIG = dict(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=64,
)


def write_tiny_bert(folder: str | Path, words: Sequence[str] = ()) -> str:
    """The files of a language model that Grounding-DINO needs, with a vocabulary of letters and
    words.
    """
    letters = [*string.ascii_lowercase, *string.digits, '.', '?', ',', '-']
    vocabulary = [
        '[PAD]',
        '[UNK]',
        '[CLS]',
        '[SEP]',
        '[MASK]',
        *letters,
        *(f'##{letter}' for letter in letters),
        *words,
    ]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'vocab.txt').write_text('\n'.join(vocabulary) + '\n', encoding='utf-8')
    config = json.dumps(dict(BERT_CONFIG, vocab_size=len(vocabulary)))
    (folder / 'config.json').write_text(config, encoding='utf-8')
    return str(folder)


def shrink_teacher(detector: ConfigDict, language_model: str) -> ConfigDict:
    """A copy of a ``GroundedSAM``'s config with 5 M parameters, for 64x64 squares and boxes at
    64x128 pixels.

    Number of levels, decoder layers that are supervised, losses and prompts work as in the full
    size.

    Args:
        detector: The config.
        language_model: What :func:`write_tiny_bert` wrote.
    """
    config = Config(dict(detector=detector))
    config.merge_from_dict(dict(detector=tiny_teacher_sizes()))
    config.detector.grounding_dino.language_model.name = language_model
    return config.detector


def tiny_teacher_sizes() -> dict:
    """What :func:`shrink_teacher` changes, but for the name of the language model.

    Grounding-DINO keeps the width 256, which its text features need.
    """
    attention = dict(embed_dims=256, num_levels=5)
    narrow = dict(embed_dims=256, feedforward_channels=32)
    grounding_dino = dict(
        num_queries=20,
        language_model=dict(max_tokens=48),
        backbone=dict(
            embed_dims=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=4,
            drop_path_rate=0.0,
        ),
        neck=dict(in_channels=[8, 16, 32, 64]),
        encoder=dict(
            num_layers=1,
            layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=narrow),
            text_layer_cfg=dict(ffn_cfg=narrow),
            fusion_layer_cfg=dict(embed_dim=32),
        ),
        decoder=dict(num_layers=2, layer_cfg=dict(cross_attn_cfg=attention, ffn_cfg=narrow)),
        bbox_head=dict(contrastive_cfg=dict(max_text_len=48)),
        dn_cfg=dict(group_cfg=dict(num_dn_queries=10)),
        box_scale=(128, 64),
        train_box_scales=[(128, 64)],
    )
    sam2 = dict(
        size='tiny',
        image_size=64,
        boxes_per_chunk=3,
        encoder=dict(
            hidden_size=8,
            num_attention_heads=1,
            blocks_per_stage=[1, 1, 2, 1],
            global_attention_blocks=[3],
            window_size_per_stage=[4, 4, 4, 2],
            window_positional_embedding_background_size=[4, 4],
        ),
        decoder=dict(mlp_dim=32),
    )
    return dict(grounding_dino=grounding_dino, sam2=sam2)


def write_tiny_clip(folder: str | Path, words: Sequence[str] = ()) -> str:
    """The files of CLIP's tokenizer that SAM3 needs, with a vocabulary of letters and words."""
    letters = [*string.ascii_lowercase, *string.digits, '.', '?', ',', '-']
    tokens = [*letters, *(f'{letter}</w>' for letter in letters)]
    merges = []
    for word in dict.fromkeys(words):
        parts = [*word[:-1], f'{word[-1]}</w>']
        while len(parts) > 1:
            pair, joined = f'{parts[0]} {parts[1]}', parts[0] + parts[1]
            if pair not in merges:
                merges.append(pair)
            if joined not in tokens:
                tokens.append(joined)
            parts = [joined, *parts[2:]]
    tokens += ['<|startoftext|>', '<|endoftext|>']
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = json.dumps({token: number for number, token in enumerate(tokens)})
    (folder / 'vocab.json').write_text(vocabulary, encoding='utf-8')
    (folder / 'merges.txt').write_text('\n'.join(['#version: 0.2', *merges, '']), encoding='utf-8')
    return str(folder)


def shrink_sam3(detector: ConfigDict, tokenizer: str) -> ConfigDict:
    """A copy of a ``SAM3``'s config with 0.2 M parameters, for squares of 56 pixels.

    Numbers of maps, auxiliary losses and texts work as in the full size.

    Args:
        detector: The config.
        tokenizer: What :func:`write_tiny_clip` wrote.
    """
    config = Config(dict(detector=detector))
    config.merge_from_dict(dict(detector=tiny_sam3_sizes()))
    config.detector.tokenizer = tokenizer
    return config.detector


def tiny_sam3_sizes() -> dict:
    """What :func:`shrink_sam3` changes, but for the tokenizer's folder."""
    dims, narrow = 32, dict(hidden_size=32, num_attention_heads=2)
    layers = dict(narrow, intermediate_size=32, num_layers=2)
    backbone = dict(
        narrow,
        intermediate_size=48,
        num_hidden_layers=3,
        window_size=2,
        global_attn_indexes=[2],
        pretrain_image_size=28,
    )
    text = dict(
        narrow,
        intermediate_size=32,
        num_hidden_layers=2,
        projection_dim=16,
        vocab_size=400,
        bos_token_id=398,
        eos_token_id=399,
    )
    network = dict(
        vision_config=dict(backbone_config=backbone, fpn_hidden_size=dims),
        text_config=text,
        geometry_encoder_config=dict(layers, num_layers=1),
        detr_encoder_config=layers,
        detr_decoder_config=dict(layers, num_queries=12),
        mask_decoder_config=narrow,
    )
    return dict(image_size=56, network=network, texts_per_chunk=2, masks_per_chunk=3)
