from .backbones import DINOv2
from .detectors import CASTDetector, CASTMask2Former, CASTMask2FormerHead
from .instance_fusion_head import InstanceFusionHead
from .losses import PixelContrastiveLoss
from .pixel_contrast import PixelContrast
from .pixel_decoders import DPTPixelDecoder
from .strong_view import PhotometricStrongView

__all__ = ['CASTDetector', 'CASTMask2Former', 'CASTMask2FormerHead', 'DINOv2', 'DPTPixelDecoder',
           'InstanceFusionHead', 'PhotometricStrongView', 'PixelContrast', 'PixelContrastiveLoss']
