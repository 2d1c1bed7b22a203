from .teacher import EMATeacherHook, FrozenTeacherHook

__all__ = ['EMATeacherHook', 'FrozenTeacherHook']
