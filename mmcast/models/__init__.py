from .backbones import DINOv2
from .detectors import (BoxPromptedSAM2, CASTDetector, CASTMask2Former, CASTMask2FormerHead, GroundedSAM,
                        PromptedGroundingDINO)
from .language_models import BertTextEncoder
from .losses import PixelContrastiveLoss
from .pixel_contrast import PixelContrast
from .pixel_decoders import DPTPixelDecoder
from .strong_view import PhotometricStrongView

__all__ = [
    'BertTextEncoder', 'BoxPromptedSAM2', 'CASTDetector', 'CASTMask2Former', 'CASTMask2FormerHead', 'DINOv2',
    'DPTPixelDecoder', 'GroundedSAM', 'PhotometricStrongView', 'PixelContrast', 'PixelContrastiveLoss',
    'PromptedGroundingDINO'
]
