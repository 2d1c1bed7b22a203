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
    logits = _enlarge(mask_logits, target)
    target = target.float().flatten(1)  # (N, HW)
    predicted = (logits > 0).float()
    intersection = (predicted * target).sum(1)
    iou = intersection / (predicted.sum(1) + target.sum(1) - intersection).clamp(min=1)
    focal, dice = _focal_and_dice(logits, target, confidence)
    return focal, dice, (quality.float() - iou).abs().sum()


def focal_and_dice(
    mask_logits: Tensor, target: Tensor, confidence: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The first two of :func:`prompted_mask_losses`, which SAM3's recipe has, too."""
    return _focal_and_dice(_enlarge(mask_logits, target), target.float().flatten(1), confidence)


def _enlarge(mask_logits: Tensor, target: Tensor) -> Tensor:
    """Logits (N, HW) at the target's size."""
    size = target.shape[-2:]
    return F.interpolate(mask_logits[None].float(), size, mode='bilinear')[0].flatten(1)


def _focal_and_dice(
    logits: Tensor, target: Tensor, confidence: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sums over masks, from logits and targets (N, HW)."""
    focal = sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2.0)
    focal = (focal if confidence is None else focal * confidence.flatten()).mean(1)
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * target).sum(1) + 1) / (probability.sum(1) + target.sum(1) + 1)
    return focal.sum(), dice.sum()
