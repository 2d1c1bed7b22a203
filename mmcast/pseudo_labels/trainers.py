"""Human annotations and pseudo-labels for other trainers, as one folder: ``mmcast export-labels``.

What a folder looks like is the business of :mod:`mmcast.coco.trainer_folder`.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcast.coco.custom import choose_classes, shared_photos
from mmcast.coco.reading import Labels, read_labels
from mmcast.coco.trainer_folder import (
    ANNOTATIONS,
    FOLDERS,
    MANIFEST,
    LabelSource,
    SourceImage,
    SplitCounts,
    same_images,
    write_trainer_folder,
)
from mmcast.errors import CASTError
from mmcast.files import sha256_of_file
from mmcast.images import ValueRange, parse_value_range
from mmcast.memory import no_cycle_search
from mmcast.pseudo_labels.filters import LabelFilter
from mmcast.pseudo_labels.selection import check_has_images, choose_thresholds, match_classes
from mmcast.pseudo_labels.store import SCORES, check_human, read_pseudo_labels
from mmcast.version import __version__

Threshold = float | Mapping[str, float]
_SPLITS = dict(train=('labeled', 'pseudo_labels'), val=('val',), test=('test',))


@no_cycle_search()
def export_labels(
    out_dir: str | os.PathLike,
    *,
    val: str | os.PathLike,
    labeled: str | os.PathLike | None = None,
    pseudo_labels: str | os.PathLike | None = None,
    test: str | os.PathLike | None = None,
    labeled_images: str | os.PathLike | None = None,
    pseudo_images: str | os.PathLike | None = None,
    val_images: str | os.PathLike | None = None,
    test_images: str | os.PathLike | None = None,
    classes: Sequence[str] | None = None,
    score_thr: Threshold = 0.3,
    class_score_thr: Threshold | None = None,
    mask_quality_thr: Threshold | None = None,
    agreement_thr: Threshold | None = None,
    thresholds_from: Mapping[str, Any] | None = None,
    min_area: int = 0,
    min_visible: float = 0,
    top_k: int | None = None,
    resolve_overlaps: bool = True,
    crowd_as_instances: bool = False,
    value_range: ValueRange = None,
    link: str = 'auto',
    num_workers: int = 0,
    force: bool = False,
    progress: bool = True,
) -> dict[str, str]:
    """Write a folder that RF-DETR, Ultralytics, lightly-train, mmdet and others train on as it is,
    and print what is in it and what was left out.

    The training set has the human annotations, and the pseudo-labels that
    :class:`~mmcast.pseudo_labels.PseudoLabelDataset` would train on with the same settings. Images
    with human annotations get no pseudo-labels.

    Args:
        out_dir: The new folder. Until it is whole it is called ``<out_dir>.partial``; the same call
            resumes an interrupted one.
        val: COCO JSON of the validation images.
        labeled: COCO JSON of human annotations.
        pseudo_labels: Pseudo-label file.
        test: COCO JSON of test images.
        labeled_images: Folder of the images of ``labeled``; default that of the file itself, as for
            the other three.
        pseudo_images: Folder of the pseudo-labeled images.
        val_images: Folder of the validation images.
        test_images: Folder of the test images.
        classes: Names, in the order of their ids in the folder; default those that ``labeled`` has
            instances of, or those of ``pseudo_labels`` without it.
        score_thr: See :class:`~mmcast.pseudo_labels.PseudoLabelDataset`, as for all filters.
        class_score_thr: Likewise.
        mask_quality_thr: Likewise.
        agreement_thr: Likewise.
        thresholds_from: Likewise.
        min_area: Likewise.
        min_visible: Likewise.
        top_k: Likewise.
        resolve_overlaps: Likewise.
        crowd_as_instances: Take annotations with ``iscrowd`` 1 for single objects.
        value_range: Black and white of images with more than 8 bits, see
            :func:`~mmcast.images.value_range.parse_value_range`.
        link: How images get into the folder: ``hardlink``, ``symlink``, ``copy``, or ``auto``: hard
            links where the file system has them, else copies.
        num_workers: Processes that trace outlines; 0 does so here.
        force: Move an existing folder aside.
        progress: Show progress bars.

    Returns:
        Paths: ``folder``, ``data_yaml``, ``manifest``, and the COCO files ``train``, ``val`` and,
        if there is one, ``test``.

    Raises:
        CASTError: a file or an image cannot be used, they do not fit, an image is in two splits, or
            the folder is there with other content.
    """
    if labeled is None and pseudo_labels is None:
        raise CASTError('there is nothing to train on: give labeled, pseudo_labels or both')
    inputs = _inputs(
        labeled=(labeled, labeled_images),
        pseudo_labels=(pseudo_labels, pseudo_images),
        val=(val, val_images),
        test=(test, test_images),
    )
    if thresholds_from is not None and pseudo_labels is None:
        raise CASTError('thresholds_from is given without pseudo_labels: give both or none')
    settings = _Settings(
        thresholds=dict(
            score=score_thr,
            class_score=class_score_thr,
            mask_quality=mask_quality_thr,
            agreement=agreement_thr,
        ),
        thresholds_from=thresholds_from,
        options=dict(
            min_area=min_area,
            top_k=top_k,
            min_visible=min_visible,
            resolve_overlaps=resolve_overlaps,
        ),
    )
    found = _read(inputs, classes, settings, crowd_as_instances)
    folder = Path(out_dir)
    counts = write_trainer_folder(
        folder,
        found.names,
        {split: [part.source for part in parts] for split, parts in found.splits.items()},
        dict(
            found.about,
            value_range=parse_value_range(value_range),
            crowd_as_instances=crowd_as_instances,
        ),
        link=link,
        value_range=value_range,
        num_workers=num_workers,
        force=force,
        progress=progress,
    )
    if counts is None:
        print(f'{folder} is complete already; {folder / MANIFEST} says what is in it')
    else:
        print('\n'.join([*found.describe(counts), *how_to_read(folder, found.names)]))
    paths = {split: str(folder / FOLDERS[split] / ANNOTATIONS) for split in found.splits}
    return dict(
        folder=str(folder),
        data_yaml=str(folder / 'data.yaml'),
        manifest=str(folder / MANIFEST),
        **paths,
    )


@dataclass(frozen=True)
class _Input:
    """A label file and the folder of its images."""

    file: Path
    images: Path

    def told(self) -> dict[str, str]:
        """What the manifest says of it; without folders, which are nobody else's business."""
        return dict(
            file=self.file.name,
            sha256=sha256_of_file(self.file),
            images=self.images.absolute().name,
        )


@dataclass(frozen=True)
class _Settings:
    """What is used of the pseudo-labels.

    Args:
        thresholds: by score, as a config has them; None where there is none.
        thresholds_from: likewise.
        options: of :class:`LabelFilter`.
    """

    thresholds: Mapping[str, Threshold | None]
    thresholds_from: Mapping[str, Any] | None
    options: Mapping[str, Any]


@dataclass
class _Part:
    """A label file's share of a split.

    Args:
        source: what to write.
        notes: what is left out of the file, by words.
        choose: what has chosen among its labels.
        labels: class names by category id, in the file of pseudo-labels.
    """

    source: LabelSource
    notes: Counter[str] = field(default_factory=Counter)
    choose: LabelFilter | None = None
    labels: Mapping[int, str] = field(default_factory=dict)

    def remarks(self) -> list[str]:
        """What is to be said of it when it is written."""
        lines = [f'  {number} {what} of {self.source.name}' for what, number in self.notes.items()]
        if self.choose is not None:
            lines.append(f'  {self.source.name}: {self.choose.summary(self.labels)}')
        return lines


@dataclass(frozen=True)
class _Contents:
    """What there is to write.

    Args:
        names: of the classes.
        splits: the parts of each split.
        about: what they are made of, for the manifest.
        remarks: what is to be said of the files.
    """

    names: list[str]
    splits: dict[str, list[_Part]]
    about: dict[str, Any]
    remarks: list[str]

    def describe(self, counts: Mapping[str, SplitCounts]) -> list[str]:
        """What was written, for a person."""
        lines = [line for line in self.remarks if line]
        for split, parts in self.splits.items():
            lines += _describe(split, counts[split], parts, self.names)
        return lines


def _read(
    inputs: Mapping[str, _Input],
    classes: Sequence[str] | None,
    settings: _Settings,
    crowd_as_instances: bool,
) -> _Contents:
    """Reads all label files."""
    given = inputs.get('pseudo_labels')
    stored = read_pseudo_labels(given.file) if given else None
    labels = {
        part: read_labels(each.file, each.images, crowd_as_instances=crowd_as_instances)
        for part, each in inputs.items()
        if part != 'pseudo_labels'
    }
    for each in labels.values():
        check_human(each.content, each.path)
    names = _choose_names(classes, labels, stored)
    remarks = [line for each in labels.values() for line in each.mended]
    if 'labeled' in labels:
        held = labels['val']
        remarks.append(shared_photos(labels['labeled'].content, held.content, held.path))
    about: dict[str, Any] = dict(
        mmcast=__version__,
        classes=names,
        sources={part: each.told() for part, each in inputs.items()},
    )
    parts = {part: _human_part(each, inputs[part].images, names) for part, each in labels.items()}
    if given and stored:
        part, limits = _pseudo_part(stored, given, names, settings)
        about['pseudo_labels'] = dict(stored['info'], thresholds=limits, **settings.options)
        parts['pseudo_labels'] = part
        if 'labeled' in parts:
            _leave_out_labeled(part, parts['labeled'])
    splits = {
        split: [parts[part] for part in members if part in parts]
        for split, members in _SPLITS.items()
    }
    return _Contents(
        names, {split: found for split, found in splits.items() if found}, about, remarks
    )


def _inputs(
    **given: tuple[str | os.PathLike | None, str | os.PathLike | None],
) -> dict[str, _Input]:
    """The label files that are there, by part; raises CASTError for images without such a file."""
    for part, (file, images) in given.items():
        if file is None and images is not None:
            raise CASTError(f'images {images} are given without {part}, the file of their labels')
    return {
        part: _Input(Path(file), _image_folder(Path(file), images))
        for part, (file, images) in given.items()
        if file is not None
    }


def _image_folder(file: Path, folder: str | os.PathLike | None) -> Path:
    """The folder of a file's images; raises CASTError if it is not there."""
    if folder is not None and not Path(folder).is_dir():
        raise CASTError(f'image folder {folder} of {file} not found: give the right path')
    return file.parent if folder is None else Path(folder)


def _choose_names(
    classes: Sequence[str] | None, labels: Mapping[str, Labels], stored: dict | None
) -> list[str]:
    """The class names to write; raises CASTError if a given one is unknown or there twice."""
    if classes is None and 'labeled' in labels:
        names = choose_classes(labels['labeled'], None)
    elif classes is None:
        names = [category['name'] for category in (stored or {}).get('categories', ())]
    else:
        names = [str(name) for name in ([classes] if isinstance(classes, str) else classes)]
    contents = [each.content for each in labels.values()] + ([stored] if stored else [])
    known = dict.fromkeys(each['name'] for content in contents for each in content['categories'])
    if not names or len({*names}) < len(names) or not known.keys() >= {*names}:
        raise CASTError(
            f'classes are {", ".join(names) or "none"}: give some of {", ".join(known)}, each once'
        )
    return names


def _numbers(content: dict, names: Sequence[str]) -> dict[int, int]:
    """The new category id, from 1, by that of a file."""
    places = {name: number for number, name in enumerate(names, start=1)}
    return {
        category['id']: places[category['name']]
        for category in content['categories']
        if category['name'] in places
    }


def _images(content: dict, folder: Path) -> list[SourceImage]:
    return [
        SourceImage(
            image['id'],
            folder / image['file_name'],
            image['file_name'],
            image['height'],
            image['width'],
        )
        for image in content['images']
    ]


def _human_part(labels: Labels, folder: Path, names: Sequence[str]) -> _Part:
    """The human annotations of these classes, without groups; raises CASTError if the file has none
    of the classes.
    """
    content, notes = labels.content, Counter[str]()
    numbers = _numbers(content, names)
    if not numbers:
        found = ', '.join(category['name'] for category in content['categories']) or 'none'
        raise CASTError(
            f'{labels.path} has none of the classes {", ".join(names)}, it has {found}: give '
            'labels of the same classes'
        )
    by_image: defaultdict[int, list[dict]] = defaultdict(list)
    for annotation in content.pop('annotations'):
        number = numbers.get(annotation['category_id'])
        if annotation['iscrowd']:
            notes['groups (iscrowd 1) left out'] += 1
        elif number is None:
            notes['objects of other classes left out'] += 1
        else:
            kept = dict(category_id=number, segmentation=annotation['segmentation'])
            by_image[annotation['image_id']].append(kept)

    def annotations(image: SourceImage) -> list[dict]:
        return by_image.pop(image.id, [])

    source = LabelSource(labels.path, 'human', _images(content, folder), annotations)
    return _Part(source, notes)


def _pseudo_part(
    stored: dict, given: _Input, names: Sequence[str], settings: _Settings
) -> tuple[_Part, dict]:
    """The pseudo-labels of these classes that are used, and the thresholds by score and class."""
    check_has_images(stored, given.file)
    ids = match_classes(stored, names, given.file, 'give classes that it has')
    thresholds = {score: value for score, value in settings.thresholds.items() if value is not None}
    limits, said = choose_thresholds(stored, ids, thresholds, settings.thresholds_from, given.file)
    if said:
        print(said)
    choose, numbers = LabelFilter(limits, **settings.options), _numbers(stored, names)
    notes = Counter(
        {'images that could not be labeled left out': len(stored.get('unreadable', ()))}
    )
    by_image: defaultdict[int, list[dict]] = defaultdict(list)
    for annotation in stored.pop('annotations'):
        by_image[annotation['image_id']].append(annotation)
        notes['pseudo-labels of other classes left out'] += annotation['category_id'] not in numbers

    def annotations(image: SourceImage) -> list[dict]:
        return [
            dict(
                category_id=numbers[annotation['category_id']],
                segmentation=annotation['segmentation'],
                **{score: annotation[score] for score in SCORES if score in annotation},
            )
            for annotation in choose(by_image.pop(image.id, []))
        ]

    source = LabelSource(str(given.file), 'pseudo', _images(stored, given.images), annotations)
    by_name = {
        score: {name: limit[category] for name, category in ids.items()}
        for score, limit in limits.items()
    }
    return _Part(source, +notes, choose, {own: name for name, own in ids.items()}), by_name


def _leave_out_labeled(pseudo: _Part, labeled: _Part) -> None:
    """Takes images that have human annotations out of those with pseudo-labels."""
    paths = {
        part.source.origin: [image.path for image in part.source.images]
        for part in (labeled, pseudo)
    }
    known = {path for group in same_images(paths) for path in group['pseudo']}
    if not known:
        return
    pseudo.source.images = [image for image in pseudo.source.images if image.path not in known]
    pseudo.notes['images that have human annotations left out'] += len(known)


def _describe(
    split: str, counts: SplitCounts, parts: Sequence[_Part], names: Sequence[str]
) -> list[str]:
    """What a split has, for a person."""
    images = ', '.join(f'{number} {origin}' for origin, number in counts.images.items())
    title = f'{FOLDERS[split]}: {counts.images.total()} images ({images})'
    lines = [f'{title}, {counts.empty} without objects; {counts.objects.total()} objects']
    for name in names:
        found = [f'{counts.objects[name, origin]} {origin}' for origin in counts.images]
        lines.append(f'  {name}: {", ".join(found)}')
    lines += [f'  {number} {what}' for what, number in counts.notes.items()]
    return lines + [line for part in parts for line in part.remarks()]


def how_to_read(folder: Path, names: Sequence[str]) -> list[str]:
    """What each trainer has to be told, as arguments of Python."""
    places = dict(path=str(folder), train='train/images', val='valid/images')
    lightly = dict(places, names=dict(enumerate(names)))
    mmdet = dict(
        data_root=str(folder),
        ann_file=f'train/{ANNOTATIONS}',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=tuple(names)),
    )
    return [
        'for the trainers:',
        f'  RF-DETR: dataset_dir={str(folder)!r}',
        f'  Ultralytics: data={str(folder / "data.yaml")!r}',
        f'  lightly-train: data={lightly}',
        f'  mmdet: {", ".join(f"{name}={value!r}" for name, value in mmdet.items())}',
    ]
