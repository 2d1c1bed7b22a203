"""mmcast: semi-supervised instance segmentation by foundation model distillation (CAST) for OpenMMLab."""
from . import compat
from .version import __version__

compat.install()  # before anything imports mmdet

__all__ = ['__version__']
