"""SAM2's training losses for masks prompted by boxes (Ravi et al., arXiv 2408.00714, appendix)."""

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss


def prompted_mask_losses(
    mask_logits: Tensor, quality: Tensor, target: Tensor, confidence: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of each of N masks, summed, without weights.

    Args:
        mask_logits: (N, h, w); enlarged bilinearly to the target's size.
        quality: (N,), the network's own estimate of each mask's IoU.
        target: (N, H, W) in {0, 1}.
        confidence: (H, W), weights of the pixels in the focal loss; None for 1.

    Returns:
        Three scalars: focal loss (mean over pixels), dice loss, and the absolute error of the
            estimated IoU.
    """
    logits = F.interpolate(mask_logits[None].float(), target.shape[-2:], mode='bilinear')[
        0
    ].flatten(1)
    target = target.float().flatten(1)  # (N, HW)
    focal = sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2.0)
    focal = (focal if confidence is None else focal * confidence.flatten()).mean(1)
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * target).sum(1) + 1) / (probability.sum(1) + target.sum(1) + 1)
    predicted = (logits > 0).float()
    intersection = (predicted * target).sum(1)
    iou = intersection / (predicted.sum(1) + target.sum(1) - intersection).clamp(min=1)
    return focal.sum(), dice.sum(), (quality.float() - iou).abs().sum()
