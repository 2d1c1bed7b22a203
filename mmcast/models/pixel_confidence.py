"""How pixels of pseudo-labeled images are weighted in the mask losses."""

import torch.nn.functional as F
from mmdet.structures import DetDataSample
from torch import Tensor

from mmcast.masks.confidence import LEVELS


def confidence_of(sample: DetDataSample) -> Tensor | None:
    """The teacher's confidence (H, W) in [0, 1] on the batch's canvas; None where none was read.

    It is 1 in the padding and wherever else a transform filled in pixels: that nothing is there is
    no guess of the teacher's. ``PseudoLabelDataset(confidence=True)`` lets the map travel as a
    segmentation map, which every transform knows.
    """
    if sample.metainfo.get('source') != 'pseudo' or 'gt_sem_seg' not in sample:
        return None
    # Of a segmentation map, transforms and the preprocessor fill in 255, "to be ignored".
    weights = sample.gt_sem_seg.sem_seg[0].clamp(max=LEVELS).float() / LEVELS
    size = sample.metainfo.get('batch_input_shape', weights.shape)
    return F.pad(weights, (0, size[1] - weights.shape[1], 0, size[0] - weights.shape[0]), value=1.0)
