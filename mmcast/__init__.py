"""mmcast: semi-supervised instance segmentation by foundation model distillation (CAST) for
OpenMMLab.

What a person types is here; each name is imported when it is asked for, as those who run an ONNX
file or split a data set need neither torch nor mmdet.
"""

from mmcast import compat
from mmcast.lazy import attach
from mmcast.version import __version__

compat.install()  # before anything imports mmdet

__all__ = [
    'CASTError',
    '__version__',
    'benchmark',
    'check_dataset',
    'export_labels',
    'export_onnx',
    'export_student',
    'find_source',
    'generate_pseudo_labels',
    'inspect_pseudo_labels',
    'load_student',
    'make_split',
    'predict',
    'test',
    'train',
]

__getattr__, __dir__ = attach(
    __name__,
    {
        'cli.test': ['test'],
        'cli.train': ['train'],
        'coco.checks.run': ['check_dataset'],
        'coco.splits': ['make_split'],
        'deploy.benchmarking': ['benchmark'],
        'deploy.export': ['export_student', 'find_source'],
        'deploy.onnx_export': ['export_onnx'],
        'deploy.prediction': ['load_student', 'predict'],
        'errors': ['CASTError'],
        'pseudo_labels.generate': ['generate_pseudo_labels'],
        'pseudo_labels.trainers': ['export_labels'],
        'reports.pseudo_labels': ['inspect_pseudo_labels'],
    },
)
