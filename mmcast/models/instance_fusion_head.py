"""From queries to instances, with the two factors of a score kept apart."""
from mmdet.models.seg_heads import MaskFormerFusionHead
from mmdet.structures.mask import mask2bbox
from mmengine.structures import InstanceData
from torch import Tensor

from mmcast.registry import MODELS


@MODELS.register_module()
class InstanceFusionHead(MaskFormerFusionHead):
    """mmdet's ``MaskFormerFusionHead`` whose instances also carry the factors of their ``scores``.

    These are ``class_scores``, the softmax probability of the class, and ``mask_quality``, the mean
    foreground probability of the mask's pixels; pseudo-labels are thresholded on either (issue 6). Everything
    else is mmdet's.
    """

    def instance_postprocess(self, mask_cls: Tensor, mask_pred: Tensor) -> InstanceData:
        """The ``max_per_image`` most probable pairs of a query and a class.

        Args:
            mask_cls: (K, C + 1) class logits.
            mask_pred: (K, H, W) mask logits.

        Returns:
            ``scores``, ``class_scores``, ``mask_quality``, ``labels`` (N,), ``bboxes`` (N, 4), ``masks``
            (N, H, W).
        """
        class_scores = mask_cls.softmax(dim=-1)[:, :-1].flatten()
        class_scores, pairs = class_scores.topk(self.test_cfg.get('max_per_image', 100), sorted=False)
        queries, labels = pairs // self.num_classes, pairs % self.num_classes
        things = labels < self.num_things_classes
        class_scores, queries, labels = class_scores[things], queries[things], labels[things]
        logits = mask_pred[queries]
        masks = logits > 0
        qualities = (logits.sigmoid() * masks).sum((1, 2)) / (masks.sum((1, 2)) + 1e-6)
        return InstanceData(scores=class_scores * qualities, class_scores=class_scores,
                            mask_quality=qualities, labels=labels, bboxes=mask2bbox(masks), masks=masks)
