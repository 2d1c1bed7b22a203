"""The student in use: export, ONNX, prediction, benchmark, model card.

Names are imported when they are asked for: those who run an ONNX file need neither torch nor mmdet.
"""
import importlib

_HOMES = {
    'OnnxStudent': 'onnx_student',
    'Instances': 'instances',
    'benchmark': 'speed',
    'export_onnx': 'onnx_export',
    'export_student': 'student',
    'find_source': 'student',
    'load_student': 'prediction',
    'predict': 'prediction',
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f'module {__name__} has no attribute {name}')
    return getattr(importlib.import_module(f'{__name__}.{_HOMES[name]}'), name)
