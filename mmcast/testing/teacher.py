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
