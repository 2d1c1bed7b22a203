"""Writes a review task: the least sure images, and their pseudo-labels as proposals."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from mmcast.coco.reading import read_image_list
from mmcast.errors import CASTError
from mmcast.files import replacing, sha256_of_file, write_atomically
from mmcast.images import check_size, read_header, read_image
from mmcast.locks import hold_lock
from mmcast.masks.rle import text_rle
from mmcast.memory import no_cycle_search
from mmcast.pseudo_labels.filters import LabelFilter, expand_threshold
from mmcast.pseudo_labels.store import read_pseudo_labels
from mmcast.review.formats import task_files
from mmcast.review.selection import LEAST_SURE, Chosen, ScoredLabels, choose_images, uncertainties
from mmcast.review.task import TASK_FILE, TOOLS, Proposal, Task, TaskImage, read_task

# What every browser and tool shows as it is.
_PLAIN = ('BMP', 'JPEG', 'PNG', 'WEBP')
_LOCK, _UNFINISHED = '.lock', '.unfinished'
_SAFE = re.compile(r'[^A-Za-z0-9._-]+')


@dataclass
class Exported:
    """What :func:`export_review` wrote.

    Args:
        task: what was handed out.
        folder: of the task.
        files: what the tool imports, below the folder.
        left_out: images that were not taken, by name, with the reason.
        unchanged: whether the folder had this task already.
    """

    task: Task
    folder: Path
    files: list[str]
    left_out: dict[str, str] = field(default_factory=dict)
    unchanged: bool = False


@no_cycle_search()
def export_review(
    store: str | os.PathLike,
    img_dir: str | os.PathLike,
    folder: str | os.PathLike,
    tool: str,
    *,
    number: int = 50,
    criterion: str = 'expected_errors',
    margin: float = 0.1,
    random_share: float = 0.2,
    seed: int = 0,
    spread_classes: bool = False,
    max_similarity: float | None = None,
    thresholds: dict[str, float] | None = None,
    min_area: int = 0,
    min_visible: float = 0,
    top_k: int | None = None,
    labeled: str | os.PathLike | None = None,
    labeled_images: str | os.PathLike | None = None,
    image_url: str | None = None,
    force: bool = False,
) -> Exported:
    """Chooses images of a pseudo-label file and writes them as a task of an annotation tool.

    An interrupted call resumes when it is made again. ``task.json`` is written last: a folder
    without it is not finished.

    Args:
        store: the pseudo-label file.
        img_dir: folder of its images.
        folder: of the task, to be made.
        tool: one of :data:`~mmcast.review.task.TOOLS`.
        number: how many images to hand out.
        criterion: what the least sure ones are, see :data:`~mmcast.review.selection.CRITERIA`.
        margin: distance from the threshold that ``near_threshold`` counts.
        random_share: fraction of the images that is drawn at random.
        seed: of the draw.
        spread_classes: let classes take turns.
        max_similarity: correlation of :func:`thumbnail` with an image chosen before, above which
            one is not taken as least sure; None takes all.
        thresholds: by score; labels above all are proposals. Default ``dict(score=0.3)``.
        min_area: smallest number of pixels of a proposal.
        min_visible: smallest fraction of its pixels that better labels leave to a proposal.
        top_k: proposals per image, at most.
        labeled: COCO JSON of images that are labeled already and not handed out.
        labeled_images: their folder; default ``img_dir``.
        image_url: for Label Studio: what stands before an image's name in the tasks.
        force: move another task in the folder aside.

    Raises:
        CASTError: a file cannot be used, no image is left, or the folder has another task.
    """
    _check_options(tool, number, random_share, margin, max_similarity)
    folder = Path(folder)
    content = read_pseudo_labels(store)
    thresholds = thresholds or dict(score=0.3)
    limits = _limits(content, thresholds)
    choose = LabelFilter(limits, min_area, top_k, min_visible)
    settings = dict(
        number=number, criterion=criterion, margin=margin, random_share=random_share, seed=seed,
        spread_classes=spread_classes, max_similarity=max_similarity, thresholds=thresholds,
        min_area=min_area, min_visible=min_visible, top_k=top_k,
        labeled=_described(labeled) if labeled else None,
        image_url=image_url or f'/data/local-files/?d={folder.absolute().name}/images/',
    )  # fmt: skip
    usable = _Usable(content, Path(img_dir), labeled, labeled_images, max_similarity)
    chosen = _choose(content, limits, settings, usable)
    images = _task_images(chosen, content, choose, usable)
    if not images:
        why = next(iter(usable.left_out.items()), None)
        raise CASTError(
            f'{store}: no image can be handed out'
            + (f', the first that cannot is {why[0]}: {why[1]}' if why else '')
        )
    classes = [category['name'] for category in content['categories']]
    source = dict(_described(store), info=content['info'])
    task = Task(tool, classes, source, settings, os.path.abspath(img_dir), images)
    return _write(task, folder, usable.left_out, force)


def _check_options(
    tool: str, number: int, random_share: float, margin: float, max_similarity: float | None
) -> None:
    if tool not in TOOLS:
        raise CASTError(f'there is no tool {tool}: choose one of {", ".join(TOOLS)}')
    if number < 1 or not 0 <= random_share <= 1:
        raise CASTError(
            f'{number} images with a random share of {random_share:g} cannot be chosen: give a '
            'number from 1 and a share from 0 to 1'
        )
    if not 0 <= margin <= 1:
        raise CASTError(f'the margin is {margin:g}: give a number from 0 to 1, as scores are')
    if max_similarity is not None and not -1 <= max_similarity <= 1:
        raise CASTError(f'the similarity is {max_similarity:g}: give a correlation of up to 1')


def _described(path: str | os.PathLike) -> dict:
    """Name and content of a file, in few words."""
    return dict(file=Path(path).name, sha256=sha256_of_file(path))


def _limits(content: dict, thresholds: dict[str, float]) -> dict[str, dict[int, float]]:
    ids = {category['name']: category['id'] for category in content['categories']}
    return {name: expand_threshold(value, ids, name) for name, value in thresholds.items()}


def _choose(content: dict, limits: dict, settings: dict, usable: '_Usable') -> list[Chosen]:
    stored: dict[int, list[dict]] = {image['id']: [] for image in content['images']}
    for annotation in content['annotations']:
        stored[annotation['image_id']].append(annotation)
    score = limits.get('score') or dict.fromkeys(
        (category['id'] for category in content['categories']), 0.0
    )
    labels = {}
    for key, annotations in stored.items():
        known = [ann for ann in annotations if ann['category_id'] in score]
        sure = LabelFilter(limits, resolve_overlaps=False)(known)
        ids = {ann['id'] for ann in sure}
        labels[key] = ScoredLabels(sure, [ann for ann in known if ann['id'] not in ids], score)
    return choose_images(
        uncertainties(labels, settings['criterion'], settings['margin']),
        settings['number'],
        settings['random_share'],
        settings['seed'],
        usable,
        _classes_of(labels) if settings['spread_classes'] else None,
    )


def _classes_of(labels: Mapping[int, ScoredLabels]) -> dict[int, set[int]]:
    """The classes that each image shows: those of its labels that pass the thresholds. Of a class
    none of whose labels passes anywhere, all count.
    """
    passing = {ann['category_id'] for own in labels.values() for ann in own.sure}
    return {
        key: {ann['category_id'] for ann in own.sure}
        | {ann['category_id'] for ann in own.unsure if ann['category_id'] not in passing}
        for key, own in labels.items()
    }


class _Usable:
    """Whether an image may be handed out; keeps why not, and the content's hash of those that may.

    Args:
        content: of the pseudo-label file.
        img_dir: folder of its images.
        labeled: COCO JSON of labeled images, or None.
        labeled_images: their folder, or None for ``img_dir``.
        max_similarity: as in :func:`export_review`.
    """

    def __init__(
        self,
        content: dict,
        img_dir: Path,
        labeled: str | os.PathLike | None,
        labeled_images: str | os.PathLike | None,
        max_similarity: float | None,
    ) -> None:
        self.entries = {image['id']: image for image in content['images']}
        self.img_dir, self.max_similarity = img_dir, max_similarity
        self._thumbnails: dict[str, np.ndarray] = {}
        self.left_out: dict[str, str] = {}
        self.hashes: dict[str, str] = {}
        self._labeled: dict[int, list[Path]] = {}
        self._labeled_hashes: dict[Path, str] = {}
        folder = Path(labeled_images) if labeled_images else img_dir
        for image in read_image_list(labeled, folder)['images'] if labeled else []:
            path = folder / image['file_name']
            if not path.is_file():
                raise CASTError(
                    f'{labeled}: image {path} is missing: name the folder of the labeled images '
                    'with --labeled-images'
                )
            self._labeled.setdefault(path.stat().st_size, []).append(path)

    def __call__(self, image_id: int, why: str) -> bool:
        entry = self.entries[image_id]
        path = self.img_dir / entry['file_name']
        reason = self._problem(entry, path) or self._alike(entry['file_name'], path, why)
        if reason:
            self.left_out[entry['file_name']] = reason
        return not reason

    def _problem(self, entry: dict, path: Path) -> str:
        if not path.is_file():
            raise CASTError(f'image {path} not found: name the folder of the images with --img-dir')
        try:
            check_size(path, read_header(path).size, (entry['height'], entry['width']), 'the store')
        except CASTError as error:
            return str(error)
        digest = sha256_of_file(path)
        for other in self._labeled.get(path.stat().st_size, ()):
            if other not in self._labeled_hashes:
                self._labeled_hashes[other] = sha256_of_file(other)
            if self._labeled_hashes[other] == digest:
                return f'labeled already, as {other}'
        if digest in self.hashes:
            return f'a copy of {self.hashes[digest]}'
        self.hashes[digest] = entry['file_name']
        return ''

    def _alike(self, name: str, path: Path, why: str) -> str:
        if self.max_similarity is None:
            return ''
        own = thumbnail(read_image(path, 'percentile'))
        for other, pixels in self._thumbnails.items() if why == LEAST_SURE else ():
            similarity = float((own * pixels).sum())
            if similarity > self.max_similarity:
                return f'looks like {other} (similarity {similarity:.3f})'
        self._thumbnails[name] = own
        return ''


def thumbnail(image: np.ndarray) -> np.ndarray:
    """What an image looks like from afar: 16 x 16 grey values of mean 0 and norm 1, so that the sum
    of the products of two is their correlation.

    Args:
        image: (H, W, 3) uint8, RGB.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    small = np.asarray(cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA), np.float64)
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-9)


def _task_images(
    chosen: Sequence[Chosen], content: dict, choose: LabelFilter, usable: _Usable
) -> list[TaskImage]:
    labels = {category['id']: category['name'] for category in content['categories']}
    found: dict[int, list[dict]] = {each.image_id: [] for each in chosen}
    for annotation in content['annotations']:
        if annotation['image_id'] in found:
            found[annotation['image_id']].append(annotation)
    hashes = {name: digest for digest, name in usable.hashes.items()}
    paths = {
        each.image_id: usable.img_dir / usable.entries[each.image_id]['file_name']
        for each in chosen
    }
    names = task_names(
        {usable.entries[key]['file_name']: _suffix(path) for key, path in paths.items()}
    )
    images = []
    for each in chosen:
        entry = usable.entries[each.image_id]
        proposals = [
            Proposal(
                ann['id'], labels[ann['category_id']], ann['score'], text_rle(ann['segmentation'])
            )
            for ann in choose(found[each.image_id])
        ]
        name = entry['file_name']
        images.append(
            TaskImage(
                names[name], name, entry['height'], entry['width'], hashes[name], each.reason,
                each.value, proposals,
            )
        )  # fmt: skip
    return sorted(images, key=lambda image: image.name)


def _is_plain(path: Path) -> bool:
    """Whether every tool shows an image as it is: no TIFF, upright, of 8 bits."""
    header = read_header(path)
    return header.format in _PLAIN and header.orientation == 1 and not header.deep


def _suffix(path: Path) -> str:
    """Of the image's copy."""
    return path.suffix if _is_plain(path) else '.png'


def task_names(suffixes: dict[str, str]) -> dict[str, str]:
    """Names without folders for images, unique however their case, with or without suffix.

    Tools drop folders, add a prefix, or mix up what differs in case or suffix alone; file systems
    and addresses have characters of their own. So names have letters, digits, ``.``, ``_`` and
    ``-``; those that are not unique so get a number in front.

    Args:
        suffixes: of the copies, by file name.
    """
    plain = {
        name: _SAFE.sub('_', PurePosixPath(name).stem).strip('.') or 'image' for name in suffixes
    }
    shared = _repeated(stem.lower() for stem in plain.values())
    names, used = {}, {stem.lower() for stem in plain.values()} - shared
    for number, (name, stem) in enumerate(sorted(plain.items()), start=1):
        unique = stem
        while stem.lower() in shared and unique.lower() in used | shared:
            unique = f'{number:04d}_{unique}'
        used.add(unique.lower())
        names[name] = unique + suffixes[name]
    return names


def _repeated(items: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    return {item for item in items if item in seen or seen.add(item)}  # type: ignore[func-returns-value]


def _write(task: Task, folder: Path, left_out: dict[str, str], force: bool) -> Exported:
    files = task_files(task)
    result = Exported(task, folder, [*files], left_out)
    with hold_lock(
        folder / _LOCK, f'{folder} is being written by process {{owner}}: wait until it ends'
    ):
        path = folder / TASK_FILE
        result.unchanged = path.exists() and read_task(folder) == task
        if not result.unchanged:
            _make_room(folder, task, force)
        for image in task.images:
            _copy_image(image, Path(task.img_dir), folder / task.image_folder)
        if not result.unchanged:
            for name, data in files.items():
                write_atomically(folder / name, data)
            write_atomically(path, task.to_json())
            (folder / _UNFINISHED).unlink(missing_ok=True)
    return result


def _make_room(folder: Path, task: Task, force: bool) -> None:
    """Sees to it that a folder has nothing but what an interrupted call wrote of this task, and a
    mark that it is not finished.
    """
    mark, digest = folder / _UNFINISHED, hashlib.sha256(task.to_json()).hexdigest()
    if mark.exists() and mark.read_text() == digest:
        return
    if any(path.name != _LOCK for path in folder.iterdir()):
        if not force:
            raise CASTError(
                f'{folder} has another review task, or other files: choose another --out, or use '
                '--force, which moves its files aside'
            )
        _move_aside(folder)
    write_atomically(mark, digest)


def _move_aside(folder: Path) -> None:
    """Moves all that a folder has into one beside it; the folder's lock stays."""
    number = 1
    while (target := folder.with_name(f'{folder.name}.old{number}')).exists():
        number += 1
    target.mkdir()
    # task.json first: without it, what is left half moved is not a finished task.
    for path in sorted(folder.iterdir(), key=lambda each: each.name != TASK_FILE):
        if path.name != _LOCK:
            path.rename(target / path.name)


def _copy_image(image: TaskImage, img_dir: Path, folder: Path) -> None:
    """Puts an image into the task's folder, as it is or, where tools would not show it, as PNG."""
    source, target = img_dir / image.file_name, folder / image.name
    if target.exists() and sha256_of_file(target) == image.sha256:
        return
    with replacing(target, target.suffix) as temporary:
        if _is_plain(source):
            shutil.copyfile(source, temporary)
        else:
            pixels = read_image(source, 'percentile')
            cv2.imwrite(str(temporary), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
