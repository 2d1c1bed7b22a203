"""MMEngine hooks: the online teacher, pixel diagnostics, checkpoints of adapters."""

from mmcast.training.hooks.adapters import AdapterLoadingHook, AdapterSavingHook
from mmcast.training.hooks.online_teacher import EMATeacherHook, FrozenTeacherHook
from mmcast.training.hooks.pixel_diagnostics import PixelDiagnosticsHook

__all__ = [
    'AdapterLoadingHook',
    'AdapterSavingHook',
    'EMATeacherHook',
    'FrozenTeacherHook',
    'PixelDiagnosticsHook',
]
