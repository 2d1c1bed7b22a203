from .cast_detector import CASTDetector
from .cast_mask2former import CASTMask2Former, CASTMask2FormerHead, NetworkOutputs
from .grounded_sam import GroundedSAM
from .prompted_grounding_dino import PromptedGroundingDINO
from .sam2 import BoxPromptedSAM2

__all__ = ['BoxPromptedSAM2', 'CASTDetector', 'CASTMask2Former', 'CASTMask2FormerHead', 'GroundedSAM',
           'NetworkOutputs', 'PromptedGroundingDINO']
