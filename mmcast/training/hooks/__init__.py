"""MMEngine hooks: the online teacher, pixel diagnostics."""

from mmcast.training.hooks.online_teacher import EMATeacherHook, FrozenTeacherHook
from mmcast.training.hooks.pixel_diagnostics import PixelDiagnosticsHook

__all__ = ['EMATeacherHook', 'FrozenTeacherHook', 'PixelDiagnosticsHook']
