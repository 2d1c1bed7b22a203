"""SAM3's published weights, in Meta's layout and in transformers'.

Meta's names are those of facebookresearch/sam3 at commit 99d02f2, as ``build_sam3_image_model``
builds it.
"""

import os
import re
from pathlib import Path

from torch import Tensor

from mmcast.errors import CASTError, Problems
from mmcast.models.encoders.dinov2 import WEIGHTS_SOURCE as DINOV2_SOURCE
from mmcast.models.teacher.class_texts import read_clip_tokenizer
from mmcast.models.teacher.foundation_weights import find_weights
from mmcast.models.weights.reading import read_state_dict, write_state_dict

SAM3_SOURCE = (
    'model.safetensors or sam3.pt of https://huggingface.co/facebook/sam3 (gated: accept the SAM '
    'License on that page with an account, then `hf auth login`)'
)
_META = 'backbone.language_backbone.'  # only Meta's names begin so
#: Around the detector in the published files, which hold the video model, too.
_DETECTOR = ('detector_model.', 'detector.')
_OTHERS = ('tracker.', 'tracker_model.', 'tracker_neck.')

#: Meta's names to transformers', in this order; what several rules fit goes through all of them.
_META_TO_TRANSFORMERS = [
    (r'^backbone\.vision_backbone\.trunk\.', 'vision_encoder.backbone.'),
    (r'^backbone\.vision_backbone\.convs\.', 'vision_encoder.neck.fpn_layers.'),
    (r'^backbone\.language_backbone\.encoder\.', 'text_encoder.text_model.'),
    (r'^backbone\.language_backbone\.resizer\.', 'text_projection.'),
    (r'^transformer\.(encoder|decoder)\.', r'detr_\1.'),
    (r'^segmentation_head\.(mask_predictor\.)?', 'mask_decoder.'),
    (r'^dot_prod_scoring\.', 'dot_product_scoring.'),
    (r'^geometry_encoder\.encode\.', 'geometry_encoder.layers.'),
    (r'^geometry_encoder\.norm\.', 'geometry_encoder.prompt_layer_norm.'),
    (r'^geometry_encoder\.encode_norm\.', 'geometry_encoder.output_layer_norm.'),
    (r'^geometry_encoder\.img_pre_norm\.', 'geometry_encoder.vision_layer_norm.'),
    # Image encoder
    (r'\.pos_embed$', '.embeddings.position_embeddings'),
    (r'\.patch_embed\.proj\.', '.embeddings.patch_embeddings.projection.'),
    (r'\.ln_pre\.', '.layer_norm.'),
    (r'\.backbone\.blocks\.', '.backbone.layers.'),
    (r'\.attn\.qkv\.', '.attention.qkv.'),
    (r'\.attn\.proj\.', '.attention.o_proj.'),
    (r'\.dconv_2x2(_0)?\.', '.scale_layers.0.'),
    (r'\.dconv_2x2_1\.', '.scale_layers.2.'),
    (r'\.conv_1x1\.', '.proj1.'),
    (r'\.conv_3x3\.', '.proj2.'),
    # Text encoder
    (r'\.text_model\.text_projection$', '.text_projection.weight'),
    (r'\.positional_embedding$', '.embeddings.position_embedding.weight'),
    (r'\.text_model\.token_embedding\.', '.text_model.embeddings.token_embedding.'),
    (r'\.transformer\.resblocks\.', '.encoder.layers.'),
    (r'\.ln_final\.', '.final_layer_norm.'),
    (r'\.ln_(\d)\.', r'.layer_norm\1.'),
    (r'\.mlp\.c_fc\.', '.mlp.fc1.'),
    (r'\.mlp\.c_proj\.', '.mlp.fc2.'),
    (r'^(text_encoder\..*)\.attn\.', r'\1.self_attn.'),
    # DETR
    (r'\.linear(\d)\.', r'.mlp.fc\1.'),
    (r'^(detr_decoder\..*)\.cross_attn\.', r'\1.vision_cross_attn.'),
    (r'\.ca_text\.', '.text_cross_attn.'),
    (r'\.catext_norm\.', '.text_cross_attn_layer_norm.'),
    (r'^(detr_decoder\.layers.*)\.norm1\.', r'\1.vision_cross_attn_layer_norm.'),
    (r'^(detr_decoder\.layers.*)\.norm2\.', r'\1.self_attn_layer_norm.'),
    (r'^(detr_decoder\.layers.*)\.norm3\.', r'\1.mlp_layer_norm.'),
    (r'_encoder\.((?:backbone\.)?layers.*)\.norm(\d)\.', r'_encoder.\1.layer_norm\2.'),
    (r'\.cross_attn_image\.', '.cross_attn.'),
    (r'^detr_decoder\.norm\.', 'detr_decoder.output_layer_norm.'),
    (r'\.bbox_embed\.', '.box_head.'),
    (r'\.boxRPB_embed_', '.box_rpb_embed_'),
    (r'\.presence_token_head\.', '.presence_head.'),
    (r'\.presence_token_out_norm\.', '.presence_layer_norm.'),
    (r'\.prompt_mlp\.out_norm\.', '.text_mlp_out_norm.'),
    (r'\.prompt_mlp\.', '.text_mlp.'),
    (r'\.prompt_proj\.', '.text_proj.'),
    (r'\.hs_proj\.', '.query_proj.'),
    *(
        (
            rf'(box_head|_head|box_rpb_embed_[xy]|text_mlp)\.layers\.{number}\.',
            rf'\1.layer{number + 1}.',
        )
        for number in range(3)
    ),
    # Masks
    (r'\.mask_embed\.', '.mask_embedder.'),
    (r'\.cross_attend_prompt\.', '.prompt_cross_attn.'),
    (r'\.cross_attn_norm\.', '.prompt_cross_attn_norm.'),
    (r'\.semantic_seg_head\.', '.semantic_projection.'),
    (r'\.instance_seg_head\.', '.instance_projection.'),
    # transformers' attention of its own; CLIP's keeps the name.
    (r'^((?!text_encoder).*)\.out_proj\.', r'\1.o_proj.'),
]
#: What text prompts have no use for, and what is computed: not in transformers' network.
_LEFT_OUT = re.compile(
    r'^geometry_encoder\.(points_|mask_encoder\.)|\.freqs_cis$|\.sam2_convs\.|\.rope_embeddings$'
    r'|\.instance_(query_embed|reference_points|box_head|bbox_embed)|\.position_ids$'
)
_NEEDED = (
    'vision_encoder.backbone.embeddings.',
    'vision_encoder.backbone.layers.',
    'vision_encoder.neck.',
    'text_encoder.text_model.',
    'text_projection.',
    'geometry_encoder.',
    'detr_encoder.layers.',
    'detr_decoder.layers.',
    'detr_decoder.presence_head.',
    'mask_decoder.pixel_decoder.',
    'mask_decoder.mask_embedder.',
    'dot_product_scoring.',
)


def prepare_sam3_weights(
    out_dir: str | os.PathLike, sam3: str, tokenizer: str, dinov2: str = ''
) -> dict[str, str]:
    """A pipeline's step: check all downloads before anything trains, and make the teacher's
    checkpoint.

    Args:
        out_dir: folder of the new file.
        sam3: Meta's ``sam3.pt``, a file or folder of transformers', or a name on Hugging Face.
        tokenizer: folder with CLIP's vocabulary, or a name on Hugging Face.
        dinov2: the student's encoder, if the pipeline has one that starts from it.

    Returns:
        ``teacher``, the new file; ``tokenizer`` and ``dinov2`` as they were given.

    Raises:
        CASTError: files are missing (which, from where, to which path) or are not what they should
            be; names all.
    """
    problems, state = Problems(), {}
    if dinov2:
        with problems.noted():
            read_state_dict(dinov2, DINOV2_SOURCE)
    with problems.noted():
        read_clip_tokenizer(tokenizer)
    with problems.noted():
        state = read_sam3(sam3)
    problems.raise_all()
    teacher = Path(out_dir, 'teacher.pth')
    write_state_dict(teacher, {f'network.{key}': value for key, value in state.items()})
    return dict(teacher=str(teacher), tokenizer=tokenizer, dinov2=dinov2)


def read_sam3(source: str | os.PathLike) -> dict[str, Tensor]:
    """Weights of ``transformers.Sam3Model`` under its names, from any of SAM3's published forms.

    Raises:
        CASTError: the file is missing, unreadable, or another network's.
    """
    files = ('model.safetensors', 'sam3.pt', 'pytorch_model.bin')
    path = find_weights(source, 'SAM3', SAM3_SOURCE, files)
    state = convert_sam3_state_dict(read_state_dict(path, SAM3_SOURCE))
    missing = [name for name in _NEEDED if not any(key.startswith(name) for key in state)]
    if missing:
        raise CASTError(
            f'{source} is not a checkpoint of SAM3, it has nothing of {", ".join(missing)}; '
            f'download {SAM3_SOURCE}'
        )
    return state


def convert_sam3_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SAM3 weights in Meta's or transformers' layout under transformers' names, without the video
    model's tracker.
    """
    detector = [prefix for prefix in _DETECTOR if any(key.startswith(prefix) for key in state)]
    if detector:
        state = {
            key.removeprefix(detector[0]): value
            for key, value in state.items()
            if key.startswith(detector[0])
        }
    state = {
        key: value
        for key, value in state.items()
        if not _LEFT_OUT.search(key) and not key.startswith(_OTHERS)
    }
    if not any(key.startswith(_META) for key in state):
        return state
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        converted |= _convert_meta(key, value)
    return converted


def _convert_meta(key: str, value: Tensor) -> dict[str, Tensor]:
    """One tensor of Meta's under transformers' name, or three of an attention's one."""
    for pattern, replacement in _META_TO_TRANSFORMERS:
        key = re.sub(pattern, replacement, key)
    if key.endswith('.position_embeddings'):
        value = value[:, 1:]  # the first is that of a class token, which SAM3 does not have
    elif key == 'text_encoder.text_projection.weight':
        value = value.T.contiguous()
    joined = re.fullmatch(r'(.*\.)(?:qkv\.|in_proj_)(weight|bias)', key)
    if not joined:
        return {key: value}
    parts = (part.clone() for part in value.chunk(3))
    return {f'{joined[1]}{name}_proj.{joined[2]}': part for name, part in zip('qkv', parts)}
