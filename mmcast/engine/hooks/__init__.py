from .pixel_diagnostics import PixelDiagnosticsHook
from .teacher import EMATeacherHook, FrozenTeacherHook

__all__ = ['EMATeacherHook', 'FrozenTeacherHook', 'PixelDiagnosticsHook']
