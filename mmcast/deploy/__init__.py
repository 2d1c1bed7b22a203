"""Deployment of the student: export, ONNX, prediction, benchmark.

Names are imported when they are asked for: those who run an ONNX file need neither torch nor mmdet.
"""

from mmcast.lazy import attach

__all__ = [
    'Instances',
    'OnnxStudent',
    'benchmark',
    'export_onnx',
    'export_student',
    'find_source',
    'load_student',
    'predict',
]

__getattr__, __dir__ = attach(
    __name__,
    {
        'benchmarking': ['benchmark'],
        'export': ['export_student', 'find_source'],
        'instances': ['Instances'],
        'onnx_export': ['export_onnx'],
        'onnx_student': ['OnnxStudent'],
        'prediction': ['load_student', 'predict'],
    },
)
