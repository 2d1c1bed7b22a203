"""What is in pseudo-label files: counts, areas, scores, and how good they are where that can be
known.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcast.coco.reading import read_coco
from mmcast.errors import CASTError
from mmcast.files import sha256_of_file
from mmcast.memory import no_cycle_search
from mmcast.pseudo_labels.filters import LabelFilter, expand_threshold, labels_per_image
from mmcast.pseudo_labels.quality import (
    average_precision,
    calibration,
    compare_labels,
    read_ground_truth,
)
from mmcast.pseudo_labels.store import SCORES, read_pseudo_labels

_BINS = 20
_PERCENTILES = (10, 50, 90)


@dataclass
class LoadedStore:
    """A pseudo-label file, its annotations by image id, and those of them that are used."""

    title: str
    path: Path
    content: dict
    stored: dict[int, list[dict]]
    used: dict[int, list[dict]]
    dropped: dict[str, int]
    hidden: dict[int, list[dict]] | None
    quality: dict[int, float] | None = None  # by image id

    @property
    def names(self) -> dict[int, str]:
        return {category['id']: category['name'] for category in self.content['categories']}


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
        loaded: the files; sets the quality of their images.
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
    content = read_pseudo_labels(path)
    ids = {category['name']: category['id'] for category in content['categories']}
    limits = {
        name: expand_threshold(value, ids, name) for name, value in options['thresholds'].items()
    }
    choose = LabelFilter(limits, options['min_area'], options['top_k'], options['min_visible'])
    stored = {image['id']: [] for image in content['images']}
    for annotation in content['annotations']:
        stored[annotation['image_id']].append(annotation)
    used = {image_id: choose(annotations) for image_id, annotations in stored.items()}
    labels = read_ground_truth(hidden, content) if hidden else None
    return LoadedStore(title, Path(path), content, stored, used, dict(choose.dropped), labels)


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
    """The figures of one file; sets the quality of its images."""
    annotations = store.content['annotations']
    scores = {name: np.array([ann[name] for ann in annotations if name in ann]) for name in SCORES}
    figures = dict(
        file=store.path.name,
        sha256=sha256_of_file(store.path),
        info=store.content['info'],
        images=len(store.stored),
        unreadable=len(store.content.get('unreadable', [])),
        empty=sum(not labels for labels in store.used.values()),
        stored=len(annotations),
        used=sum(map(len, store.used.values())),
        dropped=store.dropped,
        classes=_describe_classes(store),
        histograms={
            name: np.histogram(values, _BINS, (0, 1))[0].tolist()
            for name, values in scores.items()
            if len(values)
        },
    )
    if store.hidden is not None:
        figures['quality'] = _describe_quality(store)
    return figures


def _describe_classes(store: LoadedStore) -> dict[str, dict]:
    stored = Counter(ann['category_id'] for ann in store.content['annotations'])
    areas = defaultdict(list)
    for labels in store.used.values():
        for ann in labels:
            areas[ann['category_id']].append(ann['area'])
    hidden = Counter(
        ann['category_id']
        for labels in (store.hidden or {}).values()
        for ann in labels
        if not ann['iscrowd']
    )
    classes = {}
    for category, name in store.names.items():
        used = len(areas[category])
        classes[name] = dict(
            stored=stored[category],
            used=used,
            area=_quantiles(areas[category]),
            used_per_image=used / max(1, len(store.stored)),
        )
        if store.hidden is not None:
            classes[name]['hidden_per_image'] = hidden[category] / len(store.hidden)
    return classes


def _describe_quality(store: LoadedStore) -> dict:
    every, used = (
        compare_labels(store.stored, store.hidden),
        compare_labels(store.used, store.hidden),
    )
    store.quality = used.image_quality
    return dict(
        average_precision(store.stored, store.hidden, store.content),
        **used.summary(),
        images_compared=len(store.hidden),
        calibration={
            name: calibration(values, every.correct, every.iou)
            for name, values in every.scores.items()
        },
    )


def _describe_labeled(path: str | os.PathLike, names: Sequence[str]) -> dict:
    """Instances per image and areas of the labeled set, by class."""
    content = read_coco(path)
    means = labels_per_image(content, names)
    ids = {category['name']: category['id'] for category in content['categories']}
    areas = defaultdict(list)
    for ann in content['annotations']:
        if not ann['iscrowd']:
            areas[ann['category_id']].append(ann['area'])
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
        quality = {
            image_id: float(np.mean([ann['score'] for ann in labels])) if labels else 0.0
            for image_id, labels in store.used.items()
        }
    return sorted(quality, key=lambda image_id: (quality[image_id], image_id))


def _describe_image(stores: Sequence[LoadedStore], image_id: int) -> dict:
    names = {image['id']: image['file_name'] for image in stores[-1].content['images']}
    return dict(
        id=image_id,
        file_name=names[image_id],
        stores={
            store.title: dict(
                used=len(store.used.get(image_id, ())), quality=(store.quality or {}).get(image_id)
            )
            for store in stores
        },
    )
