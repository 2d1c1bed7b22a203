"""Tiny models and data for tests, as ``mmdet.testing`` has them."""
from .data import make_samples, same_points
from .models import build_model, randomize, tiny_cast_config, tiny_student_config

__all__ = ['build_model', 'make_samples', 'randomize', 'same_points', 'tiny_cast_config',
           'tiny_student_config']
