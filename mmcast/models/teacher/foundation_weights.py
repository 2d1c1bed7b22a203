"""The foundation teacher's public weights: one checkpoint of ``GroundedSAM`` from two downloads."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, cat

from mmcast.errors import CASTError, Problems
from mmcast.models.encoders.dinov2 import WEIGHTS_SOURCE as DINOV2_SOURCE
from mmcast.models.teacher.bert import check_language_model
from mmcast.models.weights.reading import is_hub_name, read_state_dict, write_state_dict

GROUNDING_DINO_SOURCE = 'https://download.openmmlab.com/mmdetection/v3.0/mm_grounding_dino/grounding_dino_swin-l_pretrain_all/grounding_dino_swin-l_pretrain_all-56d69e78.pth'
SAM2_SOURCE = (
    'https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_large.pt (or '
    'model.safetensors of https://huggingface.co/facebook/sam2.1-hiera-large)'
)
_FILES = ('model.safetensors', 'pytorch_model.bin')

#: Meta's names to transformers', in this order; what several rules fit goes through all of them.
_META_TO_TRANSFORMERS = [
    (r'^image_encoder\.trunk\.', 'vision_encoder.backbone.'),
    (r'^image_encoder\.neck\.convs\.(\d+)\.conv\.', r'vision_encoder.neck.convs.\1.'),
    (r'^sam_prompt_encoder\.', 'prompt_encoder.'),
    (r'^sam_mask_decoder\.', 'mask_decoder.'),
    (r'^no_mem_embed$', 'no_memory_embedding'),
    (r'\.patch_embed\.proj\.', '.patch_embed.projection.'),
    (r'\.norm(\d)\.', r'.layer_norm\1.'),
    (r'\.norm_final_attn\.', '.layer_norm_final_attn.'),
    (r'\.out_proj\.', '.o_proj.'),
    (r'\.pe_layer\.positional_encoding_gaussian_matrix$', '.shared_embedding.positional_embedding'),
    (r'\.mlp\.layers\.0\.', '.mlp.proj_in.'),
    (r'\.mlp\.layers\.1\.', '.mlp.proj_out.'),
    (r'(_mlps\.\d+|_head)\.layers\.0\.', r'\1.proj_in.'),
    (r'(_mlps\.\d+|_head)\.layers\.2\.', r'\1.proj_out.'),
    (r'(_mlps\.\d+|_head)\.layers\.1\.', r'\1.layers.0.'),
    *(
        (rf'\.mask_downscaling\.{number}\.', f'.mask_embed.{name}.')
        for number, name in (
            (0, 'conv1'),
            (1, 'layer_norm1'),
            (3, 'conv2'),
            (4, 'layer_norm2'),
            (6, 'conv3'),
        )
    ),
    *(
        (rf'\.output_upscaling\.{number}\.', f'.{name}.')
        for number, name in ((0, 'upscale_conv1'), (1, 'upscale_layer_norm'), (3, 'upscale_conv2'))
    ),
]
#: The video memory, which images have no use for, in Meta's names and in transformers'.
_META_VIDEO = (
    'memory_attention.',
    'memory_encoder.',
    'mask_downsample.',
    'maskmem_tpos_enc',
    'no_mem_pos_enc',
    'no_obj_ptr',
    'no_obj_embed_spatial',
    'obj_ptr_proj.',
    'obj_ptr_tpos_proj.',
)
_TRANSFORMERS_VIDEO = (
    'memory_',
    'mask_downsample',
    'object_pointer_proj.',
    'temporal_positional_encoding_projection',
    'no_memory_positional_encoding',
    'no_object_pointer',
    'occlusion_spatial_embedding_parameter',
)
_SHARED = 'shared_image_embedding.positional_embedding'
_SHARED_TWIN = 'prompt_encoder.shared_embedding.positional_embedding'


def merge_teacher_weights(
    out_dir: str | os.PathLike,
    grounding_dino: str,
    sam2: str,
    language_model: str,
    dinov2: str = '',
) -> dict[str, str]:
    """A pipeline's step: check all downloads before anything trains, and make the teacher's
    checkpoint.

    Args:
        out_dir: folder of the new file.
        grounding_dino: mmdet's checkpoint of MM-Grounding-DINO.
        sam2: SAM2.1 as Meta's ``.pt``, as a file or folder of transformers', or as a name on
            Hugging Face.
        language_model: folder with the vocabulary of BERT, or a name on Hugging Face.
        dinov2: the student's encoder, if the pipeline has one that starts from it.

    Returns:
        ``teacher``, the new file; ``language_model`` and ``dinov2`` as they were given.

    Raises:
        CASTError: files are missing (which, from where, to which path) or are not what they should
            be; names all.
    """
    problems, components = Problems(), {}
    if dinov2:
        with problems.noted():
            read_state_dict(dinov2, DINOV2_SOURCE)
    with problems.noted():
        check_language_model(language_model)
    with problems.noted():
        components['grounding_dino'] = read_grounding_dino(grounding_dino)
    with problems.noted():
        components['sam2'] = read_sam2(sam2)
    problems.raise_all()
    prefixes = dict(grounding_dino='grounding_dino.', sam2='sam2.model.')
    teacher = Path(out_dir, 'teacher.pth')
    write_state_dict(
        teacher,
        {
            prefixes[component] + key: value
            for component, state in components.items()
            for key, value in state.items()
        },
    )
    return dict(teacher=str(teacher), language_model=language_model, dinov2=dinov2)


def read_grounding_dino(path: str | os.PathLike) -> dict[str, Tensor]:
    """Weights of mmdet's ``GroundingDINO`` under its names.

    Raises:
        CASTError: the file is missing, unreadable, or another network's.
    """
    state = read_state_dict(path, GROUNDING_DINO_SOURCE)
    needed = (
        'backbone.',
        'language_model.',
        'text_feat_map.',
        'dn_query_generator.',
        'bbox_head.cls_branches.',
    )
    missing = [name for name in needed if not any(key.startswith(name) for key in state)]
    if missing:
        raise CASTError(
            f"{path} is not a checkpoint of mmdet's Grounding-DINO, it has nothing of "
            f'{", ".join(missing)}; download {GROUNDING_DINO_SOURCE}'
        )
    # Numbers 0 to 511, which older versions of transformers stored.
    return {
        key: value for key, value in state.items() if not key.endswith('embeddings.position_ids')
    }


def read_sam2(source: str | os.PathLike) -> dict[str, Tensor]:
    """Weights of ``transformers.Sam2Model`` under its names, from any of SAM2.1's published forms.

    Raises:
        CASTError: the file is missing, unreadable, or another network's.
    """
    state = convert_sam2_state_dict(
        read_state_dict(find_weights(source, 'SAM2', SAM2_SOURCE), SAM2_SOURCE)
    )
    needed = (
        'vision_encoder.backbone.',
        'vision_encoder.neck.',
        'prompt_encoder.',
        'mask_decoder.',
        _SHARED,
    )
    missing = [name for name in needed if not any(key.startswith(name) for key in state)]
    if missing:
        raise CASTError(
            f'{source} is not a checkpoint of SAM2.1, it has nothing of {", ".join(missing)}; '
            f'download {SAM2_SOURCE}'
        )
    return state


def find_weights(
    source: str | os.PathLike, name: str, download: str, files: Sequence[str] = _FILES
) -> Path:
    """The weights file of a path, or of a name on Hugging Face, from where it is downloaded once.

    Args:
        source: The path or name.
        name: Of the network, for messages.
        download: Where its weights are to be had, for messages.
        files: What a folder may have, in this order; of a name on Hugging Face the first.

    Raises:
        CASTError: a folder without weights, or Hugging Face does not give the file.
    """
    path = Path(source)
    if path.is_dir():
        found = [path / file for file in files if (path / file).is_file()]
        if not found:
            raise CASTError(
                f'{path} has neither {" nor ".join(files)}; download {download} into it'
            )
        return found[0]
    is_file_name = path.suffix in ('.pt', '.pth', '.bin', '.safetensors')
    if path.exists() or is_file_name or not is_hub_name(str(source)):
        return path
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(str(source), files[0]))
    except (OSError, HfHubHTTPError, HFValidationError, ValueError) as error:
        raise CASTError(
            f'{name} weights {source}: no such folder here, and Hugging Face gave none '
            f'({type(error).__name__}); download {download} and give its path'
        ) from error


def convert_sam2_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SAM2 weights in Meta's or transformers' layout under transformers' names, without the video
    memory.
    """
    if any(key.startswith('sam_mask_decoder.') for key in state):
        state = {
            _rename_sam2_key(key): value
            for key, value in state.items()
            if not key.startswith(_META_VIDEO)
        }
        points = [state.pop(f'prompt_encoder.point_embeddings.{i}.weight', None) for i in range(4)]
        if all(point is not None for point in points):
            state['prompt_encoder.point_embed.weight'] = cat(points)
    else:
        state = {
            key: value for key, value in state.items() if not key.startswith(_TRANSFORMERS_VIDEO)
        }
    for name, twin in (
        (_SHARED, _SHARED_TWIN),
        (_SHARED_TWIN, _SHARED),
    ):  # one tensor, saved once or twice
        if twin in state:
            state.setdefault(name, state[twin])
    return state


def _rename_sam2_key(key: str) -> str:
    for pattern, replacement in _META_TO_TRANSFORMERS:
        key = re.sub(pattern, replacement, key)
    return key
