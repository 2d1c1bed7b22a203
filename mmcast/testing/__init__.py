"""Tiny models and data for tests, as ``mmdet.testing`` has them."""

from mmcast.testing.data import make_samples, same_points
from mmcast.testing.models import (
    build_model,
    build_without_memory,
    randomize,
    tiny_cast_config,
    tiny_student_config,
)
from mmcast.testing.teacher import shrink_teacher, tiny_teacher_sizes, write_tiny_bert

__all__ = [
    'build_model',
    'build_without_memory',
    'make_samples',
    'randomize',
    'same_points',
    'shrink_teacher',
    'tiny_cast_config',
    'tiny_student_config',
    'tiny_teacher_sizes',
    'write_tiny_bert',
]
