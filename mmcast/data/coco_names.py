"""mmdet's COCO data set and metric, with labels that follow class names.

mmdet (3.3.0, onedl 3.4.5) numbers labels in the order in which a file lists its categories,
whatever the order of ``metainfo['classes']``, and closes the gap that a missing category leaves. A
file in another order than the classes then trains and tests swapped names.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmdet.evaluation.metrics import coco_metric
from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from mmcast.coco.evaluation import FastCOCOeval
from mmcast.coco.instances import LEAST_DETECTIONS, beyond_limit, count_objects
from mmcast.coco.reading import read_labels
from mmcast.data.mixing import MixedImages
from mmcast.errors import CASTError
from mmcast.registry import DATASETS, METRICS


class NamedCOCO(COCO):
    """A COCO file, read and mended by :func:`mmcast.coco.reading.read_labels`, that is asked for
    categories by name, in the order of the names.

    Args:
        annotation_file: the file.
        img_dir: folder of its images; their headers tell the sizes that the file does not.

    Raises:
        CASTError: the file cannot be used.
    """

    def __init__(
        self, annotation_file: str | None = None, img_dir: str | os.PathLike | None = None
    ) -> None:
        super().__init__()
        if annotation_file is None:
            return
        labels = read_labels(annotation_file, img_dir)
        for line in labels.mended:
            print_log(line, logger='current', level=logging.WARNING)
        self.dataset = labels.content
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    def get_cat_ids(self, cat_names: Any = (), sup_names: Any = (), cat_ids: Any = ()) -> list:
        """With names alone: one id per name; of a name that the file lacks one that it lacks
        too.
        """
        if not cat_names or isinstance(cat_names, str) or sup_names or cat_ids:
            return super().get_cat_ids(cat_names, sup_names, cat_ids)
        return ids_of_labels(self, cat_names)


def ids_of_labels(coco: COCO, classes: Sequence[str]) -> list[int]:
    """One category id per class, matched by name, never by position; for a class that the file
    lacks, one that it lacks too.
    """
    ids = {category['name']: category['id'] for category in coco.dataset['categories']}
    absent = min([0, *coco.cats]) - 1
    return [ids.get(name, absent - label) for label, name in enumerate(classes)]


@DATASETS.register_module()
class CocoDataset(MixedImages):
    """mmdet's ``CocoDataset``; the label of a category is the index of its name in
    ``metainfo['classes']``, and the file is mended or refused as
    :func:`mmcast.coco.reading.read_labels` says.
    """

    COCOAPI = NamedCOCO

    def load_data_list(self) -> list[dict]:
        """Each image with its instances, see mmdet."""
        img_dir = self.data_prefix.get('img')
        if img_dir is None or not os.path.isdir(img_dir):  # a remote folder, or none
            return super().load_data_list()
        self.COCOAPI = partial(NamedCOCO, img_dir=img_dir)
        try:
            return super().load_data_list()
        finally:
            del self.COCOAPI


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """mmdet's ``CocoMetric``; a label means the category of its class name in ``ann_file``, which
    is mended or refused as :func:`mmcast.coco.reading.read_labels` says.

    Predictions of a class that the file lacks count for nothing. Figures per class have the names
    of their categories, whatever the order of ids in the file. All figures are mmdet's, by hotcoco
    in place of pycocotools, see :mod:`mmcast.coco.evaluation`.

    Args:
        ann_file: COCO file of the ground truth.
        img_dir: folder of its images, needed only where it does not say their sizes.
        min_area: objects of fewer pixels are ignored, as COCO ignores those outside of its areas:
            they are not missed, and a prediction that finds one, or is as small and finds nothing,
            is no mistake.
        min_objects: classes with fewer objects in the file, not counting groups and what
            ``min_area`` ignores, are left out of all figures: a handful of objects decides the AP
            of their class, which is as much of the mean as that of any other. Without a class that
            has as many there is no figure.
        max_dets: how many predictions of a class in an image count in all figures, the best ones;
            at least 100. None: as mmdet, 100 in mAP and the last of ``proposal_nums`` in others.
            Images with more objects of a class than count in mAP are named.
        **kwargs: see mmdet.

    Raises:
        CASTError: the file cannot be used, ``min_area`` is no number of pixels, ``min_objects`` no
            number, or given without a file, or ``max_dets`` below 100.
    """

    def __init__(
        self,
        ann_file: str | None = None,
        img_dir: str | None = None,
        min_area: int = 0,
        min_objects: int = 0,
        max_dets: int | None = None,
        **kwargs: Any,
    ) -> None:
        if max_dets is not None:
            if not isinstance(max_dets, int) or max_dets < LEAST_DETECTIONS:
                raise CASTError(
                    f'CocoMetric: max_dets is {max_dets}; give a number from {LEAST_DETECTIONS}'
                )
            # Named AR@100, AR@300 and AR@1000 where they are asked for, whatever they are.
            kwargs['proposal_nums'] = (LEAST_DETECTIONS, min(300, max_dets), max_dets)
        super().__init__(**kwargs)
        self.max_dets = max_dets
        if not isinstance(min_objects, int) or min_objects < 0 or (min_objects and not ann_file):
            raise CASTError(
                f'CocoMetric: min_objects is {min_objects} and ann_file {ann_file}; give a number '
                'of objects from 0, and with it the file in which they are counted'
            )
        self.min_objects = min_objects
        valid = isinstance(min_area, (int, float)) and min_area >= 0
        if not valid or (min_area and (self.use_mp_eval or 'proposal_fast' in self.metrics)):
            raise CASTError(
                f'CocoMetric: min_area is {min_area}; give a number of pixels from 0, and neither '
                'use_mp_eval nor proposal_fast with it'
            )
        self.min_area = min_area
        if ann_file is not None:
            with get_local_path(ann_file, backend_args=self.backend_args) as path:
                self._coco_api = NamedCOCO(path, img_dir)
            self._say_limit(ann_file)
        self._ids_of_labels: list[int] | None = None

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The metrics of all processes' results, see mmdet."""
        if self._coco_api is not None:
            self._ids_of_labels = ids_of_labels(self._coco_api, self.dataset_meta['classes'])
            # Sorted, as COCOeval's own order is, from which mmdet takes figures by position.
            known = [id_ for id_ in self._ids_of_labels if id_ in self._coco_api.cats]
            self.cat_ids = sorted(self._frequent(known))
            if known and not self.cat_ids:
                _warn(f'no class has {self.min_objects} objects: no figures')
                return {}
        in_memory, all_alike = self.outfile_prefix is None, self.max_dets is not None
        with _fast_evaluation(in_memory, self.min_area, all_alike):
            return super().compute_metrics(results)

    def _say_limit(self, ann_file: str) -> None:
        """Logs which images have more objects of a class than predictions count."""
        limit = self.max_dets or LEAST_DETECTIONS
        images = (self._coco_api.imgToAnns.get(image, ()) for image in self._coco_api.imgs)
        counts = np.array([max(count_objects(each).values(), default=0) for each in images], int)
        if said := beyond_limit(counts, limit):
            _warn(
                f'{ann_file}: {said}: AP counts the best {limit} predictions of a class in an '
                f'image; set max_dets of the metric, to {counts.max()} or more'
            )

    def _frequent(self, ids: Sequence[int]) -> list[int]:
        """Those categories that are evaluated, see ``min_objects``; says which are not."""
        if not self.min_objects:
            return list(ids)
        found = count_objects(self._coco_api.dataset['annotations'], self.min_area)
        rare = [id_ for id_ in ids if found[id_] < self.min_objects]
        if rare:
            names = [f'{self._coco_api.cats[id_]["name"]} ({found[id_]})' for id_ in rare]
            _warn(f'left out, with fewer than {self.min_objects} objects: {", ".join(names)}')
        return [id_ for id_ in ids if id_ not in rare]

    def results2json(self, results: list, outfile_prefix: str) -> dict:
        """Writes predictions with the category ids of their labels' names."""
        evaluated = self.cat_ids
        self.cat_ids = self._ids_of_labels or evaluated
        try:
            return super().results2json(results, outfile_prefix)
        finally:
            self.cat_ids = evaluated


@contextlib.contextmanager
def _fast_evaluation(in_memory: bool, min_area: int, all_alike: bool) -> Iterator[None]:
    """Within the block, mmdet's metric evaluates by hotcoco.

    Args:
        in_memory: whether it hands predictions over as they are. By itself it writes them into a
            temporary file and reads that, which takes longer than hotcoco's evaluation.
        min_area: see :class:`CocoMetric`.
        all_alike: see :class:`~mmcast.coco.evaluation.FastCOCOeval`.
    """
    replaced = {name: getattr(coco_metric, name) for name in ('COCOeval', 'dump', 'load')}
    kept: dict[str, list] = {}

    def dump(content: Any, path: str) -> None:
        if isinstance(content, list):  # not the ground truth, which COCO reads from its file
            kept[path] = content
        else:
            replaced['dump'](content, path)

    coco_metric.COCOeval = partial(FastCOCOeval, say=_warn, min_area=min_area, all_alike=all_alike)
    if in_memory:
        coco_metric.dump, coco_metric.load = dump, kept.__getitem__
    try:
        yield
    finally:
        for name, original in replaced.items():
            setattr(coco_metric, name, original)


def _warn(line: str) -> None:
    print_log(line, logger='current', level=logging.WARNING)
