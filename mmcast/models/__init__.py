"""Networks and losses of mmdet's kinds."""

from mmcast.models.cast import CASTDetector
from mmcast.models.losses.pixel_contrastive_loss import PixelContrastiveLoss
from mmcast.models.pixel_contrast import PixelContrast
from mmcast.models.strong_view import PhotometricStrongView
from mmcast.models.student.dpt import DPTPixelDecoder
from mmcast.models.student.mask2former import CASTMask2Former
from mmcast.models.student.mask2former_head import CASTMask2FormerHead
from mmcast.models.teacher.bert import BertTextEncoder
from mmcast.models.teacher.grounded_sam import GroundedSAM
from mmcast.models.teacher.grounding_dino import PromptedGroundingDINO
from mmcast.models.teacher.sam2 import BoxPromptedSAM2
from mmcast.models.teacher.sam3 import SAM3

__all__ = [
    'BertTextEncoder',
    'BoxPromptedSAM2',
    'CASTDetector',
    'CASTMask2Former',
    'CASTMask2FormerHead',
    'DPTPixelDecoder',
    'GroundedSAM',
    'PhotometricStrongView',
    'PixelContrast',
    'PixelContrastiveLoss',
    'PromptedGroundingDINO',
    'SAM3',
]
