"""Losses: the instance-aware pixel-wise contrastive loss of CAST."""

from mmcast.models.losses.functional import (
    debiased_scores,
    fuse_pixel_probabilities,
    nt_xent,
    sample_negatives,
)
from mmcast.models.losses.pixel_contrastive_loss import (
    LossInputError,
    NonFiniteInputError,
    PixelContrastiveLoss,
)

__all__ = [
    'LossInputError',
    'NonFiniteInputError',
    'PixelContrastiveLoss',
    'debiased_scores',
    'fuse_pixel_probabilities',
    'nt_xent',
    'sample_negatives',
]
