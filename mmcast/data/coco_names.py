"""mmdet's COCO data set and metric, with labels that follow class names.

mmdet (3.3.0, onedl 3.4.5) numbers labels in the order in which a file lists its categories,
whatever the order of ``metainfo['classes']``, and closes the gap that a missing category leaves. A
file in another order than the classes then trains and tests swapped names.
"""

from collections.abc import Sequence
from typing import Any

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric as MMDetCocoMetric

from mmcast.coco.categories import category_ids
from mmcast.registry import DATASETS, METRICS


class NamedCOCO(COCO):
    """A COCO file that is asked for categories by name, in the order of the names."""

    def __init__(self, annotation_file: str | None = None) -> None:
        super().__init__(annotation_file)
        self.annotation_file = annotation_file

    def get_cat_ids(self, cat_names: Any = (), sup_names: Any = (), cat_ids: Any = ()) -> list:
        """With names alone: one id per name; of a name that the file lacks one that it lacks too.

        Raises:
            CASTError: several categories of one name have annotations.
        """
        if not cat_names or isinstance(cat_names, str) or sup_names or cat_ids:
            return super().get_cat_ids(cat_names, sup_names, cat_ids)
        return ids_of_labels(self, cat_names, self.annotation_file or 'COCO file')


def ids_of_labels(coco: COCO, classes: Sequence[str], ann_file: str) -> list[int]:
    """One category id per class, see :func:`mmcast.coco.categories.category_ids`; for a class that
    the file lacks, one that it lacks too.
    """
    used = {annotation['category_id'] for annotation in coco.anns.values()}
    found = category_ids(coco.dataset['categories'], used, classes, ann_file)
    absent = min([0, *coco.cats]) - 1
    return [absent - label if id_ is None else id_ for label, id_ in enumerate(found)]


@DATASETS.register_module()
class CocoDataset(MMDetCocoDataset):
    """mmdet's ``CocoDataset``; the label of a category is the index of its name in
    ``metainfo['classes']``.
    """

    COCOAPI = NamedCOCO


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """mmdet's ``CocoMetric``; a label means the category of its class name in ``ann_file``.

    Predictions of a class that the file lacks count for nothing. Figures per class have the names
    of their categories, whatever the order of ids in the file.

    Raises:
        CASTError: several categories of one name have annotations.
    """

    def __init__(self, ann_file: str | None = None, **kwargs: Any) -> None:
        super().__init__(ann_file=ann_file, **kwargs)
        self.ann_file = ann_file
        self._ids_of_labels: list[int] | None = None

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The metrics of all processes' results, see mmdet."""
        if self._coco_api is not None:
            self._ids_of_labels = ids_of_labels(
                self._coco_api, self.dataset_meta['classes'], self.ann_file or 'the ground truth'
            )
            # Sorted, as COCOeval's own order is, from which mmdet takes figures by position.
            self.cat_ids = sorted(id_ for id_ in self._ids_of_labels if id_ in self._coco_api.cats)
        return super().compute_metrics(results)

    def results2json(self, results: list, outfile_prefix: str) -> dict:
        """Writes predictions with the category ids of their labels' names."""
        evaluated = self.cat_ids
        self.cat_ids = self._ids_of_labels or evaluated
        try:
            return super().results2json(results, outfile_prefix)
        finally:
            self.cat_ids = evaluated
