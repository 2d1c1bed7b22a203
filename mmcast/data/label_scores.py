"""Scores of pseudo-labels on their way to a data sample: ``gt_scores`` (N,) beside ``gt_bboxes``.

mmdet's transforms name the arrays that they shorten. These two know one more.
"""

import numpy as np
from mmdet.datasets.transforms import FilterAnnotations as MMDetFilterAnnotations
from mmdet.datasets.transforms import PackDetInputs as MMDetPackDetInputs

from mmcast.registry import TRANSFORMS


@TRANSFORMS.register_module()
class FilterAnnotations(MMDetFilterAnnotations):
    """mmdet's ``FilterAnnotations``; of ``gt_scores``, where there are any, those of the labels
    that it keeps stay.
    """

    def transform(self, results: dict) -> dict | None:
        """See mmdet."""
        scores, flags = results.get('gt_scores'), results.get('gt_ignore_flags')
        if scores is None:
            return super().transform(results)
        # In place of the flags, indices, which say afterwards what is left.
        filtered = super().transform(results | dict(gt_ignore_flags=np.arange(len(scores))))
        if filtered is not None:
            left = filtered['gt_ignore_flags']
            filtered |= dict(gt_ignore_flags=flags[left], gt_scores=scores[left])
        return filtered


@TRANSFORMS.register_module()
class PackDetInputs(MMDetPackDetInputs):
    """mmdet's ``PackDetInputs``; ``gt_scores``, where there are any, become ``scores`` of
    ``gt_instances``.
    """

    mapping_table = MMDetPackDetInputs.mapping_table | dict(gt_scores='scores')
