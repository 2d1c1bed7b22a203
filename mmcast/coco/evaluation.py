"""COCO's average precision by hotcoco (in Rust, https://github.com/derekallman/hotcoco), which has
the figures of pycocotools in a fraction of its time and memory.
"""

import contextlib
import importlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from mmcast.coco.instances import LEAST_DETECTIONS, beyond_limit, count_objects

hotcoco: Any = None
with contextlib.suppress(ImportError):
    hotcoco = importlib.import_module('hotcoco')

NO_HOTCOCO = (
    'hotcoco cannot be imported: pip install hotcoco, for the same figures many times as fast'
)
_SHAPES = dict(bbox='bbox', segm='segmentation')  # what instances are compared by


class FastCOCOeval(COCOeval):
    """pycocotools' ``COCOeval``, evaluated by hotcoco where that is possible.

    ``eval`` and ``stats`` are those of pycocotools. What it has on the way (``evalImgs``, ``ious``)
    is not there, and annotations stay as they are.

    Args:
        truth: the ground truth, with unique ids above 0.
        found: what ``truth.loadRes`` returns.
        kind: ``bbox`` or ``segm``; keypoints are left to pycocotools.
        say: told why, before pycocotools evaluates.
        min_area: in pixels, where all of COCO's ranges of areas begin that begin below.
        all_alike: whether the first figure, AP, counts as many predictions of a class in an
            image as the others, the last of ``params.maxDets``; pycocotools' counts the best 100,
            whatever these are.
    """

    def __init__(
        self,
        truth: COCO,
        found: COCO,
        kind: str = 'segm',
        say: Callable[[str], object] = print,
        min_area: int = 0,
        all_alike: bool = False,
    ) -> None:
        super().__init__(truth, found, kind)
        self._all_alike = all_alike
        self.params.areaRng = [[max(low, min_area), high] for low, high in self.params.areaRng]
        self._say = say
        self._fast: dict | None = None

    def evaluate(self) -> None:
        """Matches all images, by ``params``."""
        params = self.params
        params.imgIds = np.unique(params.imgIds).tolist()
        if params.useCats:
            params.catIds = np.unique(params.catIds).tolist()
        params.maxDets = sorted(params.maxDets)
        try:
            self._fast = _evaluate(self.cocoGt.dataset, self.cocoDt.dataset['annotations'], params)
        except _NotByHotcoco as error:
            self._say(f'evaluating with pycocotools: {error}')
            self._fast = None
            super().evaluate()

    def accumulate(self, p: Params | None = None) -> None:
        """Precision and recall, in ``eval``."""
        if self._fast is None:
            super().accumulate(p)
        elif p is not None and p is not self.params:
            raise NotImplementedError('set params before evaluate()')
        else:
            self.eval = dict(self._fast, params=self.params)

    def summarize(self) -> None:
        """The figures, in ``stats``; prints them."""
        super().summarize()
        number = self.params.maxDets[-1]
        if self._all_alike and number != LEAST_DETECTIONS:
            precision = self.eval['precision'][:, :, :, 0, -1]
            self.stats[0] = precision[precision > -1].mean() if (precision > -1).any() else -1
            print(f' the first of these with maxDets={number}: {self.stats[0]:0.3f}')


class MaskPrecision:
    """COCO's precision of masks whose images come one after the other; hotcoco keeps what it needs
    of each.

    Args:
        image_ids: of all images.
        category_ids: of all classes.
        say: told why, before pycocotools evaluates in place of hotcoco; it keeps everything. And
            which images have more objects than predictions count.
    """

    def __init__(
        self, image_ids: Iterable, category_ids: Iterable, say: Callable[[str], object] = print
    ) -> None:
        # Of equal scores that of the lower image id counts first.
        self._images = {own: number for number, own in enumerate(sorted(image_ids), 1)}
        self._numbers = {own: number for number, own in enumerate(sorted(category_ids), 1)}
        self._categories = [dict(id=number, name=str(number)) for number in self._numbers.values()]
        self._say = say
        self._run = hotcoco.StreamingEval(self._categories, 'segm') if hotcoco else None
        self._content = dict(images=[], annotations=[], categories=self._categories)
        self._found: list[dict] = []
        self._objects: list[int] = []  # of each image, of its most frequent class

    def add(self, image: dict, truth: Iterable[dict], found: Iterable[dict]) -> None:
        """An image.

        Args:
            image: its entry in COCO.
            truth: ground truth, dicts with ``category_id``, ``segmentation``, ``area`` and
                ``iscrowd``.
            found: predictions, dicts with ``category_id``, ``segmentation`` and ``score``.
        """
        own = dict(_size(image), id=self._images[image['id']], file_name='')
        annotations = self._renumber(own['id'], truth, ('area', 'iscrowd'))
        self._objects.append(max(count_objects(annotations).values(), default=0))
        predictions = self._renumber(own['id'], found, ('score',))
        if self._run is not None:
            self._run.update([own], annotations, predictions)
            return
        self._content['images'].append(own)
        self._content['annotations'] += annotations
        self._found += predictions

    def _renumber(self, image: int, labels: Iterable[dict], fields: Sequence[str]) -> list[dict]:
        labels = [dict(label, image_id=image) for label in labels]
        return list(_renumber(labels, {image: image}, self._numbers, 'segmentation', fields))

    def precision(self) -> np.ndarray:
        """(IoU, recall, class), the classes in the order of their ids; -1 where there is none."""
        if said := beyond_limit(np.array(self._objects, int), LEAST_DETECTIONS):
            self._say(f'{said}: AP counts the best {LEAST_DETECTIONS} of an image, as COCO does')
        if self._run is not None:
            run = self._run.finalize()
            run.accumulate()
        else:
            self._say(f'evaluating with pycocotools: {NO_HOTCOCO}')
            run = self._by_pycocotools()
        return np.asarray(run.eval['precision'])[:, :, :, 0, -1]  # all areas, 100 labels

    def _by_pycocotools(self) -> COCOeval:
        truth, found = COCO(), COCO()
        for coco, annotations in ((truth, self._content['annotations']), (found, self._found)):
            numbered = [dict(each, id=number) for number, each in enumerate(annotations, 1)]
            coco.dataset = dict(self._content, annotations=numbered)
        for each in found.dataset['annotations']:
            each.update(area=int(mask_utils.area(each['segmentation'])), iscrowd=0)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools talks
            truth.createIndex()
            found.createIndex()
            run = COCOeval(truth, found, 'segm')
            run.evaluate()
            run.accumulate()
        return run


class _NotByHotcoco(Exception):
    """Says why."""


def _evaluate(truth: dict, found: Sequence[dict], params: Params) -> dict:
    """What ``COCOeval.eval`` has of a COCO data set and predictions.

    hotcoco is given ids of its own and only what it compares: it refuses ids that are text or
    negative, and whole files for a licence that is no number.

    Raises:
        _NotByHotcoco: it is not there, or refuses them.
    """
    if hotcoco is None:
        raise _NotByHotcoco(NO_HOTCOCO)
    shape = _SHAPES.get(params.iouType)
    if shape is None or getattr(params, 'useSegm', None) is not None:
        raise _NotByHotcoco(f'hotcoco is not asked for {params.iouType}')
    images = {own: number for number, own in enumerate(params.imgIds, 1)}
    numbers = {own: number for number, own in enumerate(params.catIds, 1)}
    chosen = dict(
        images=[
            dict(id=images[each['id']], file_name='', **_size(each))
            for each in truth['images']
            if each['id'] in images
        ],
        categories=[dict(id=number, name=str(number)) for number in numbers.values()],
        annotations=list(
            _renumber(truth['annotations'], images, numbers, shape, ('area', 'iscrowd'))
        ),
    )
    predictions = list(_renumber(found, images, numbers, shape, ('score',)))
    try:
        return _accumulated(chosen, predictions, params, len(numbers))
    except (ValueError, TypeError, OverflowError) as error:
        raise _NotByHotcoco(f'hotcoco refuses what there is to evaluate ({error})') from error


def _size(image: dict) -> dict:
    return {side: image[side] for side in ('height', 'width') if side in image}


def _renumber(
    annotations: Iterable[dict], images: dict, categories: dict, shape: str, fields: Sequence[str]
) -> Iterator[dict]:
    """Those of some images and categories, with the keys that hotcoco needs."""
    for number, ann in enumerate(annotations, 1):
        image, category = images.get(ann['image_id']), categories.get(ann['category_id'])
        if image is None or category is None:
            continue
        own = dict(id=number, image_id=image, category_id=category)
        own[shape] = ann[shape]
        for field in fields:
            own[field] = ann[field]
        yield own


def _accumulated(truth: dict, predictions: list[dict], params: Params, classes: int) -> dict:
    data_set = hotcoco.COCO(truth)
    evaluation = hotcoco.COCOeval(data_set, data_set.loadRes(predictions), params.iouType)
    own = evaluation.params
    own.imgIds = list(range(1, len(params.imgIds) + 1))
    own.catIds = list(range(1, classes + 1))
    own.useCats = bool(params.useCats)
    for name in ('iouThrs', 'recThrs', 'maxDets', 'areaRng', 'areaRngLbl'):
        setattr(own, name, params.__dict__[name])
    evaluation.evaluate()
    evaluation.accumulate()
    arrays = {name: np.asarray(evaluation.eval[name]) for name in ('precision', 'recall', 'scores')}
    return dict(arrays, counts=list(arrays['precision'].shape))
