"""Images whose labels a teacher made."""
from __future__ import annotations

from collections import Counter

from mmdet.datasets import CocoDataset
from mmengine.logging import print_log
from pycocotools import mask as mask_utils

from ..errors import CASTError
from ..pseudo_labels.store import read_pseudo_labels, resolve_rle_overlaps
from ..registry import DATASETS


@DATASETS.register_module()
class PseudoLabelDataset(CocoDataset):
    """A file of `generate_pseudo_labels`, filtered when read, each image with `source` set to 'pseudo'.

    Instances carry their `score`; labels follow the order of `metainfo['classes']`, matched by name. Every
    image stays, also one that has no label left: that nothing is in it is what the teacher says. Masks are
    RLE, so the pipeline loads them with `LoadAnnotations(with_bbox=True, with_mask=True)` (not
    `poly2mask=False`).

    Args:
        score_thr: Labels with a score above it are used; a number, or one for each class by name.
        min_area: Smallest number of pixels of a label, counted after overlaps are resolved.
        resolve_overlaps: A pixel that several labels claim goes to the one with the highest score.

    Raises:
        CASTError: If the file is no pseudo-label file, or its classes or those of `score_thr` are not the
            data set's.
    """

    def __init__(self, *args, score_thr: float | dict[str, float] = 0.3, min_area: int = 0,
                 resolve_overlaps: bool = True, **kwargs):
        self.score_thr = score_thr
        self.min_area = min_area
        self.resolve_overlaps = resolve_overlaps
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        self._label_of = self._match_classes(read_pseudo_labels(self.ann_file)['categories'])
        self._thresholds = self._threshold_per_label()
        self._found, self._kept = Counter(), Counter()
        data_list = super().load_data_list()
        # mmdet numbers labels in the file's order of categories; ours is that of the classes.
        self.cat_ids, self.cat2label = list(self._label_of), self._label_of
        self._log_counts(data_list)
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict:
        annotations = self._select(raw_data_info['raw_ann_info'])
        data_info = super().parse_data_info(dict(raw_data_info, raw_ann_info=annotations))
        for instance, annotation in zip(data_info['instances'], annotations, strict=True):
            instance.update(bbox_label=self._label_of[annotation['category_id']], score=annotation['score'])
        data_info['source'] = 'pseudo'
        return data_info

    def filter_data(self) -> list[dict]:
        """Keep every image; an empty one is information."""
        return self.data_list

    def _select(self, annotations: list[dict]) -> list[dict]:
        """The annotations of one image that are used, with the pixels that are left to them."""
        known = [ann for ann in annotations if ann['category_id'] in self._label_of]
        self._found.update(self._label_of[ann['category_id']] for ann in known)
        sure = [ann for ann in known if ann['score'] > self._thresholds[self._label_of[ann['category_id']]]]
        masks = [ann['segmentation'] for ann in sure]
        if self.resolve_overlaps:
            masks = resolve_rle_overlaps(masks, [ann['score'] for ann in sure])
        selected = []
        for ann, rle in zip(sure, masks, strict=True):
            area = int(mask_utils.area(rle))
            if area >= max(1, self.min_area):
                box = mask_utils.toBbox(rle).tolist()
                selected.append(dict(ann, segmentation=rle, area=area, bbox=box))
        self._kept.update(self._label_of[ann['category_id']] for ann in selected)
        return selected

    def _match_classes(self, categories: list[dict]) -> dict[int, int]:
        """Label by category id, in the order of labels."""
        ids = {category['name']: category['id'] for category in categories}
        missing = [name for name in self.metainfo['classes'] if name not in ids]
        if missing:
            raise CASTError(f'{self.ann_file} has no class {", ".join(missing)}, it has {", ".join(ids)}: '
                            'set metainfo.classes of this data set to the classes of its teacher')
        return {ids[name]: label for label, name in enumerate(self.metainfo['classes'])}

    def _threshold_per_label(self) -> list[float]:
        classes = self.metainfo['classes']
        if not isinstance(self.score_thr, dict):
            return [self.score_thr] * len(classes)
        if set(self.score_thr) != set(classes):
            raise CASTError(f'score_thr of {self.ann_file} is for the classes {", ".join(self.score_thr)}: '
                            f'give one number for each of {", ".join(classes)}')
        return [self.score_thr[name] for name in classes]

    def _log_counts(self, data_list: list[dict]) -> None:
        per_class = ', '.join(f'{name} {self._kept[label]}/{self._found[label]}'
                              for label, name in enumerate(self.metainfo['classes']))
        empty = sum(not info['instances'] for info in data_list)
        print_log(f'{self.ann_file}: kept {self._kept.total()} of {self._found.total()} pseudo-labels '
                  f'({per_class}); {empty} of {len(data_list)} images are empty', logger='current')
