"""What is in pseudo-label files: counts, areas, scores, and how good they are where that can be
known.
"""

import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcast.coco.parallel import available_processors, map_in_processes
from mmcast.coco.reading import read_labels
from mmcast.errors import CASTError
from mmcast.files import sha256_of_file
from mmcast.memory import no_cycle_search
from mmcast.pseudo_labels.by_image import Block, LinesByImage, NotAsWritten, WholeFile
from mmcast.pseudo_labels.filters import LabelFilter, expand_threshold, labels_per_image
from mmcast.pseudo_labels.quality import (
    Comparer,
    calibration,
    describe_precision,
    mask_precision,
    read_ground_truth,
)
from mmcast.pseudo_labels.store import SCORES

_BINS = 20
_PERCENTILES = (10, 50, 90)
_PARTS_WITHOUT_PROCESSES = 8  # of 4 MB: a process takes longer to start


@dataclass
class LoadedStore:
    """A pseudo-label file and the figures of its labels, which are read again where they are drawn.

    Attributes:
        title: of its column.
        path: of the file.
        content: of the file, without ``annotations``.
        counts: what is counted of the labels.
        labels: the file's, by image.
        choose: which of them are used.
        hidden: ground truth by image id, if there is any.
        quality: of each image that has ground truth, by its id.
        figures: AP, precision and calibration, where there is ground truth.
    """

    title: str
    path: Path
    content: dict
    counts: '_Counts'
    labels: WholeFile | LinesByImage
    choose: LabelFilter
    hidden: dict[int, list[dict]] | None
    quality: dict[int, float] | None = None
    figures: dict | None = None

    @property
    def names(self) -> dict[int, str]:
        return {category['id']: category['name'] for category in self.content['categories']}

    def used(self, image_id: int) -> list[dict]:
        """The labels of an image that are used."""
        return self.choose(self.labels.of(image_id))


class _Counts:
    """What is counted of one image after the other."""

    def __init__(self) -> None:
        self.scores = {name: array('d') for name in SCORES}  # of all labels that have one
        self.stored: Counter[int] = Counter()  # by category id
        self.areas: dict[int, array] = {}  # of those used, likewise
        self.used: dict[int, tuple[int, float]] = {}  # how many, and their mean score, by image id
        self.dropped: Counter[str] = Counter()

    def add(self, image_id: int, labels: Sequence[dict], used: Sequence[tuple[dict, int]]) -> None:
        """An image with its labels, and those that are used with the pixels left to them."""
        for name, values in self.scores.items():
            values.extend(label[name] for label in labels if name in label)
        self.stored.update(label['category_id'] for label in labels)
        for label, area in used:
            self.areas.setdefault(label['category_id'], array('d')).append(area)
        if used:
            self.used[image_id] = len(used), float(np.mean([label['score'] for label, _ in used]))

    def join(self, more: '_Counts') -> None:
        """Those of other images, too."""
        for name, values in more.scores.items():
            self.scores[name].extend(values)
        for category, values in more.areas.items():
            self.areas.setdefault(category, array('d')).extend(values)
        self.stored.update(more.stored)
        self.used.update(more.used)
        self.dropped.update(more.dropped)


@no_cycle_search()
def load_stores(
    stores: Mapping[str, str | os.PathLike], options: dict, hidden: str | os.PathLike | None
) -> list[LoadedStore]:
    """Pseudo-label files of the same images, by the title of their column.

    Args:
        stores: the files.
        options: ``thresholds`` by score, and those of :class:`LabelFilter`, that decide which
            labels are used.
        hidden: COCO JSON with held-out ground truth of the images, if there is any.

    Raises:
        CASTError: a file is missing, or they are not of the same images or classes.
    """
    loaded = [_load(title, path, options, hidden) for title, path in stores.items()]
    _check_same_images(loaded)
    return loaded


def describe_stores(
    loaded: Sequence[LoadedStore], options: dict, labeled: str | os.PathLike | None, images: int
) -> tuple[dict, dict[str, list[int]]]:
    """The figures of pseudo-label files as docs/pseudo_labels.md has them, and ids of images worth
    a look.

    Args:
        loaded: the files.
        options: as for :func:`load_stores`.
        labeled: COCO JSON of the labeled images, to compare counts and areas with.
        images: how many of the ``worst`` and of the ``best``, judged by the last file.
    """
    people = _describe_labeled(labeled, loaded[0].names.values()) if labeled else None
    report = dict(
        settings=options, labeled=people, stores={store.title: _describe(store) for store in loaded}
    )
    places = _order_by_quality(loaded[-1])
    chosen = dict(worst=places[:images], best=places[::-1][:images])
    report['images'] = {
        kind: [_describe_image(loaded, image) for image in found] for kind, found in chosen.items()
    }
    return report, chosen


def _load(
    title: str, path: str | os.PathLike, options: dict, hidden: str | os.PathLike | None
) -> LoadedStore:
    try:
        return _count(title, path, options, hidden, LinesByImage(path))
    except NotAsWritten:  # edited, or damaged, which the whole file tells
        return _count(title, path, options, hidden, WholeFile(path))


def _count(
    title: str,
    path: str | os.PathLike,
    options: dict,
    hidden: str | os.PathLike | None,
    labels: WholeFile | LinesByImage,
) -> LoadedStore:
    """Goes through the labels of a file."""
    content = labels.content
    ids = {category['name']: category['id'] for category in content['categories']}
    limits = {
        name: expand_threshold(value, ids, name) for name, value in options['thresholds'].items()
    }
    choose = LabelFilter(limits, options['min_area'], options['top_k'], options['min_visible'])
    truths = read_ground_truth(hidden, content) if hidden else None
    if truths is None and isinstance(labels, LinesByImage):
        counts = _count_in_processes(labels, choose)
        return LoadedStore(title, Path(path), content, counts, labels, choose, None)
    comparison = None if truths is None else _Quality(content, truths)
    counts = _Counts()
    for image_id, found in labels:
        used = choose(found)
        counts.add(image_id, found, [(label, label['area']) for label in used])
        if comparison:
            comparison.add(image_id, found, used)
    counts.dropped.update(choose.dropped)
    store = LoadedStore(title, Path(path), content, counts, labels, choose, truths)
    if comparison:
        store.quality, store.figures = comparison.result()
    return store


def _count_in_processes(labels: LinesByImage, choose: LabelFilter) -> _Counts:
    """Goes through the parts of a file, in as many processes as there are processors."""
    places = list(labels.blocks())
    workers = available_processors() if len(places) > _PARTS_WITHOUT_PROCESSES else 0
    counts, blocks = _Counts(), []
    for found, block in map_in_processes(_count_block, places, (labels, choose), workers):
        counts.join(found)
        blocks.append(block)
    labels.note(blocks)
    return counts


def _count_block(
    place: tuple[int, int], shared: tuple[LinesByImage, LabelFilter]
) -> tuple[_Counts, Block]:
    labels, choose = shared
    counts, block = _Counts(), labels.read(place)
    choose.dropped.clear()
    for image_id, found in block.images:
        counts.add(image_id, found, choose.areas(found))
    counts.dropped.update(choose.dropped)
    block.images = []
    return counts, block


class _Quality:
    """Labels of one image after the other against ground truth.

    Args:
        content: of the file.
        hidden: ground truth by image id.
    """

    def __init__(self, content: dict, hidden: dict[int, list[dict]]) -> None:
        self._content, self._hidden = content, hidden
        self._images = {image['id']: image for image in content['images'] if image['id'] in hidden}
        self._every, self._used = Comparer(), Comparer()
        self._precision = mask_precision(self._images, content)
        self._left = dict.fromkeys(self._images)

    def add(self, image_id: int, labels: Sequence[dict], used: Sequence[dict]) -> None:
        if image_id not in self._left:
            return
        del self._left[image_id]
        truths = self._hidden[image_id]
        self._every.add(image_id, labels, truths)
        self._used.add(image_id, used, truths)
        self._precision.add(self._images[image_id], truths, labels)

    def result(self) -> tuple[dict[int, float], dict]:
        """Quality by image id, and the figures of the file."""
        for image_id in list(self._left):  # without labels
            self.add(image_id, (), ())
        every, used = (each.result(self._hidden) for each in (self._every, self._used))
        figures = dict(
            describe_precision(self._precision, self._content),
            **used.summary(),
            images_compared=len(self._hidden),
            calibration={
                name: calibration(values, every.correct, every.iou)
                for name, values in every.scores.items()
            },
        )
        return used.image_quality, figures


def _check_same_images(stores: Sequence[LoadedStore]) -> None:
    first, *others = [
        {image['id']: image['file_name'] for image in store.content['images']} for store in stores
    ]
    for store, names in zip(stores[1:], others):
        common = first.keys() & names.keys()
        if not common or any(first[image_id] != names[image_id] for image_id in common):
            raise CASTError(
                f'{stores[0].path} and {store.path} are not of the same images; inspect them one '
                'by one'
            )


def _describe(store: LoadedStore) -> dict:
    """The figures of one file."""
    counts, images = store.counts, store.content['images']
    figures = dict(
        file=store.path.name,
        sha256=sha256_of_file(store.path),
        info=store.content['info'],
        images=len(images),
        unreadable=len(store.content.get('unreadable', [])),
        empty=len(images) - len(counts.used),
        stored=counts.stored.total(),
        used=sum(number for number, _ in counts.used.values()),
        dropped=dict(counts.dropped),
        classes=_describe_classes(store),
        histograms={
            name: np.histogram(np.array(values), _BINS, (0, 1))[0].tolist()
            for name, values in counts.scores.items()
            if len(values)
        },
    )
    if store.figures is not None:
        figures['quality'] = store.figures
    return figures


def _describe_classes(store: LoadedStore) -> dict[str, dict]:
    images, areas = len(store.content['images']), store.counts.areas
    hidden = Counter(
        ann['category_id']
        for labels in (store.hidden or {}).values()
        for ann in labels
        if not ann['iscrowd']
    )
    classes = {}
    for category, name in store.names.items():
        used = len(areas.get(category, ()))
        classes[name] = dict(
            stored=store.counts.stored[category],
            used=used,
            area=_quantiles(areas.get(category, ())),
            used_per_image=used / max(1, images),
        )
        if store.hidden is not None:
            classes[name]['hidden_per_image'] = hidden[category] / len(store.hidden)
    return classes


def _describe_labeled(path: str | os.PathLike, names: Sequence[str]) -> dict:
    """Instances per image and areas of the labeled set, by class."""
    labels = read_labels(path)
    content = labels.content
    means = labels_per_image(content, names)
    ids = {category['name']: category['id'] for category in content['categories']}
    areas = defaultdict(list)
    for ann, area in zip(content['annotations'], labels.rows.areas, strict=True):
        if not ann['iscrowd']:
            areas[ann['category_id']].append(area)
    return dict(
        images=len(content['images']),
        classes={
            name: dict(per_image=mean, area=_quantiles(areas[ids[name]]))
            for name, mean in means.items()
        },
    )


def _quantiles(areas: Sequence[float]) -> list[float]:
    """The 10, 50 and 90 % quantiles in pixels; empty without areas."""
    return np.percentile(areas, _PERCENTILES).round().tolist() if len(areas) else []


def _order_by_quality(store: LoadedStore) -> list[int]:
    """Image ids, the worst first: by agreement with ground truth, or else by the mean score of
    used ones.
    """
    quality = store.quality
    if quality is None:
        used = store.counts.used
        quality = {
            image['id']: used.get(image['id'], (0, 0.0))[1] for image in store.content['images']
        }
    return sorted(quality, key=lambda image_id: (quality[image_id], image_id))


def _describe_image(stores: Sequence[LoadedStore], image_id: int) -> dict:
    names = {image['id']: image['file_name'] for image in stores[-1].content['images']}
    return dict(
        id=image_id,
        file_name=names[image_id],
        stores={
            store.title: dict(
                used=store.counts.used.get(image_id, (0,))[0],
                quality=(store.quality or {}).get(image_id),
            )
            for store in stores
        },
    )
