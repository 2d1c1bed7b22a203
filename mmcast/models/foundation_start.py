"""The weights that a foundation pipeline on own images starts from."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmcast.errors import Problems
from mmcast.models.encoders.dinov2 import WEIGHTS_SOURCE as DINOV2_SOURCE
from mmcast.models.teacher.foundation_weights import merge_teacher_weights
from mmcast.models.teacher.sam3_weights import prepare_sam3_weights
from mmcast.models.weights.coco_student import fit_coco_student
from mmcast.models.weights.reading import read_state_dict
from mmcast.models.weights.start import fit_start_weights

#: Downloads that each network starts from, and their licences as their publishers state them.
LICENCES = dict(
    grounded_sam=dict(grounding_dino='Apache-2.0, OpenMMLab', sam2='Apache-2.0, Meta'),
    sam3=dict(sam3='SAM License, Meta'),
    cast_student=dict(dinov2='Apache-2.0, Meta'),
    cast_lite={},  # fit_start_weights tells them
    mask2former_r50_coco=dict(mask2former='Apache-2.0, OpenMMLab'),
)


def prepare_foundation_weights(
    out_dir: str | os.PathLike,
    teacher: str,
    student: str,
    classes: Sequence[str],
    num_queries: int,
    downloads: Mapping[str, str | None],
) -> dict[str, Any]:
    """A pipeline's step: check all downloads before anything trains, and make the checkpoints that
    teacher and student start from. What the two that were chosen do not need may be missing.

    Args:
        out_dir: Folder of the new files.
        teacher: ``grounded_sam`` or ``sam3``.
        student: ``cast_student``, ``cast_lite`` or ``mask2former_r50_coco``.
        classes: Names to learn.
        num_queries: Of the student.
        downloads: By name, the arguments of :func:`merge_teacher_weights`, those of
            :func:`prepare_sam3_weights`, ``dinov2`` (encoder of ``cast_student``),
            ``student_encoder`` and ``student_weights`` (of ``cast_lite``, the encoder and the
            rest, see :func:`fit_start_weights`) and ``mask2former`` (see
            :func:`fit_coco_student`).

    Returns:
        ``teacher`` and ``student``, checkpoints to load (None for a student whose config names its
        encoder's weights itself), and ``weights``, dicts with ``path`` and ``licence`` of the
        downloads that were used.

    Raises:
        CASTError: Files are missing (which, from where, to which path) or are not what they should
            be; names all.
    """
    made: dict[str, Any] = dict(student=None)
    problems = Problems()
    with problems.noted():
        made |= _prepare_student(out_dir, student, classes, num_queries, downloads)
    with problems.noted():
        made |= _prepare_teacher(out_dir, teacher, downloads)
    problems.raise_all()
    licences = {**LICENCES[teacher], **LICENCES[student]}
    used = {name: downloads[name] for name in licences if downloads[name]}
    return dict(
        teacher=made['teacher'],
        student=made['student'],
        weights=[
            *(dict(path=path, licence=licences[name]) for name, path in used.items()),
            *made.get('weights', []),
        ],
    )


def _prepare_teacher(
    out_dir: str | os.PathLike, teacher: str, downloads: Mapping[str, str | None]
) -> dict[str, Any]:
    if teacher == 'sam3':
        return prepare_sam3_weights(out_dir, str(downloads['sam3']), str(downloads['tokenizer']))
    names = ('grounding_dino', 'sam2', 'language_model')
    return merge_teacher_weights(out_dir, *(str(downloads[name]) for name in names))


def _prepare_student(
    out_dir: str | os.PathLike,
    student: str,
    classes: Sequence[str],
    num_queries: int,
    downloads: Mapping[str, str | None],
) -> dict[str, Any]:
    """Nothing is made for a student whose config names its encoder's weights itself."""
    if student == 'cast_student':
        read_state_dict(str(downloads['dinov2']), DINOV2_SOURCE)
    if student == 'cast_lite':
        encoder = downloads['student_encoder']
        return fit_start_weights(
            out_dir,
            num_queries,
            configs=dict(student='foundation/foundation_cast_lite_transfer.py'),
            encoders=dict(student=encoder) if encoder else None,
            student=str(downloads['student_weights']),
        )
    if student == 'mask2former_r50_coco':
        return fit_coco_student(out_dir, str(downloads['mask2former']), classes, num_queries)
    return {}
