from .cast_detector import CASTDetector
from .cast_mask2former import CASTMask2Former, CASTMask2FormerHead, NetworkOutputs

__all__ = ['CASTDetector', 'CASTMask2Former', 'CASTMask2FormerHead', 'NetworkOutputs']
