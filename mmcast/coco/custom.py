"""The data step of ``configs/cast_custom.py``: a COCO JSON, some unlabeled images, and nothing else
to arrange.
"""

import filecmp
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.progress import track

from mmcast.coco.consistency import check_image
from mmcast.coco.folds import without_images
from mmcast.coco.instances import check_instances, empty_lines, groups_line, rare_line
from mmcast.coco.reading import Labels, read_image_list, read_labels
from mmcast.coco.versions import ids_by_photo, version_of
from mmcast.errors import CASTError
from mmcast.files import write_atomically, write_json_files
from mmcast.images import (
    IMAGE_SUFFIXES,
    ValueRange,
    list_folder,
    parse_value_range,
    read_sizes,
    readable,
)
from mmcast.memory import no_cycle_search

_SIZES_CHECKED = 5000  # labeled images whose headers are read before training; loading checks each
_UNREADABLE = 'unreadable_unlabeled.txt'


@no_cycle_search()
def prepare_custom_data(
    data_root: str | os.PathLike,
    labeled: str,
    unlabeled: str,
    out_dir: str | os.PathLike,
    classes: str | Sequence[str] | None = None,
    val: str | None = None,
    val_percent: float = 20,
    seed: int = 0,
    labeled_images: str | None = None,
    val_images: str | None = None,
    crowd_as_instances: bool | str = False,
    value_range: ValueRange = None,
) -> dict:
    """Find what belongs together and write the COCO files that training reads, with what can be
    mended mended; the data set is not touched.

    Args:
        data_root: Folder that the other paths are relative to.
        labeled: COCO JSON of the labeled images.
        unlabeled: Folder of images, at any depth, or a COCO JSON, whose annotations are
            ignored. Images that are labeled or for validation are left out.
        out_dir: Folder of the new files.
        classes: Names to learn; default those that ``labeled`` has instances of, in its order.
        val: COCO JSON of validation images; default a part of the labeled ones, which is then not
            trained on. Versions of one photo stay together.
        val_percent: Percentage of them.
        seed: Which images these are.
        labeled_images: Folder of the images of ``labeled``, found by itself by default, see
            :func:`find_images`.
        val_images: Folder of the images of ``val``, likewise.
        crowd_as_instances: Take annotations with ``iscrowd`` 1 for single objects.
        value_range: Black and white in images of more than 8 bits; without it, labeled ones are
            refused and unlabeled ones left out.

    Returns:
        Paths ``labeled``, ``unlabeled``, ``val``, folders ``train_images``, ``unlabeled_images``,
        ``val_images``, ``classes`` and ``num_classes``.

    Raises:
        CASTError: something is missing, does not fit, cannot be used or is ambiguous, naming it and
            the setting to change.
    """
    root = existing(Path(data_root), 'variables.data_root')
    crowd_as_instances = _is_true(crowd_as_instances, 'variables.crowd_as_instances')
    value_range = parse_value_range(value_range)
    read = partial(
        _read,
        root=root,
        crowd_as_instances=crowd_as_instances,
        deep_is_fine=value_range is not None,
    )
    labels, folder = read(labeled, labeled_images, 'labeled')
    names = choose_classes(labels, classes)
    train = _Part(labels.content, folder, labels.class_instances(names))
    check_instances(labels, train.counts)
    said = [groups_line(labels), *labels.mended]
    if val:
        labels, folder = read(val, val_images, 'val')
        content = _with_categories(labels.content, names)
        held = _Part(content, folder, labels.class_instances(names))
        if not held.counts.any():
            raise CASTError(
                f'{labels.path} has no instance of {", ".join(names)}: give other classes or labels'
            )
        said += [groups_line(labels), *labels.mended, shared_photos(train.coco, held.coco, val)]
    else:
        train, held = hold_out(train, labels.path, val_percent, seed)
    train_files, val_files = train.files(), held.files()
    unlabeled_folder, images, unreadable = list_unlabeled(
        existing(root / unlabeled, 'variables.unlabeled'),
        root,
        train_files | val_files,
        value_range,
        {version_of(image['file_name']) for image in held.coco['images']} - {None},
    )
    said += [
        *empty_lines(train.counts, names, 'labeled'),
        *empty_lines(held.counts, names, 'validation'),
        rare_line(dict(zip(names, held.counts.sum(0).tolist())), 'validation images'),
        _shared_files_line(_copies(train_files, val_files)),
        write_unreadable(unreadable, unlabeled_folder, Path(out_dir, _UNREADABLE)),
        f'{len(train.counts)} labeled, {len(images)} unlabeled and {len(held.counts)} '
        f'validation images{"" if val else f" ({val_percent:g} % of the labeled)"}; classes: '
        + ', '.join(names),
    ]
    paths = _write(Path(out_dir), train.coco, images, held.coco)
    print('\n'.join(filter(None, said)))
    return dict(
        paths,
        train_images=str(train.folder),
        unlabeled_images=str(unlabeled_folder),
        val_images=str(held.folder),
        classes=names,
        num_classes=len(names),
    )


def _write(folder: Path, labeled: dict, unlabeled: list[dict], val: dict) -> dict[str, str]:
    """Writes the three files and returns their paths by name."""
    contents = dict(
        labeled=labeled,
        unlabeled=dict(images=unlabeled, annotations=[], categories=labeled['categories']),
        val=val,
    )
    paths = {name: folder / f'{name}.json' for name in contents}
    write_json_files({paths[name]: content for name, content in contents.items()})
    return {name: str(path) for name, path in paths.items()}


def _read(
    ann_file: str,
    folder: str | None,
    name: str,
    *,
    root: Path,
    crowd_as_instances: bool,
    deep_is_fine: bool,
) -> tuple[Labels, Path]:
    """The labels of ``variables.<name>``, and the folder of their images."""
    path = existing(root / ann_file, f'variables.{name}')
    setting = f'variables.{name}_images'

    def find(images: list[dict]) -> Path:
        return find_images(images, path, root, folder, setting)

    labels = read_labels(path, find, crowd_as_instances=crowd_as_instances)
    found = find(labels.content['images'])
    check_sizes(labels.content['images'][:_SIZES_CHECKED], found, path, deep_is_fine)
    return labels, found


def existing(path: Path, setting: str) -> Path:
    """The path; raises CASTError if nothing is there."""
    if not path.exists():
        raise CASTError(
            f'{path} not found: say where it is with --cfg-options {setting}=PATH, or in the config'
        )
    return path


def _is_true(value: bool | str, setting: str) -> bool:
    """A setting, which a command line may give as text."""
    text = str(value).strip().lower()
    if text not in ('true', 'false'):
        raise CASTError(f'{setting} is True or False, not {value}')
    return text == 'true'


def check_sizes(images: list[dict], folder: Path, ann_file: Path, deep_is_fine: bool) -> None:
    """Raises CASTError if images cannot be read, are of another size than listed or, unless that is
    fine, have more than 8 bits, with their number and the first.
    """
    errors = []
    for image in images:
        try:
            check_image(image, folder, ann_file, deep_is_fine)
        except CASTError as error:
            errors.append(str(error))
    if len(errors) > 1:
        raise CASTError(f'{len(errors)} images of {ann_file} do not fit it; the first: {errors[0]}')
    if errors:
        raise CASTError(errors[0])


def choose_classes(labels: Labels, classes: str | Sequence[str] | None) -> list[str]:
    """The class names to learn, each of which the file knows.

    Without a choice, a category without instances is left out: labeling tools export one that holds
    the others.
    """
    coco = labels.content
    used = {ann['category_id'] for ann in coco['annotations'] if not ann['iscrowd']}
    known = [category['name'] for category in coco['categories']]
    if classes is None or classes in ('', [], ()):
        return [category['name'] for category in coco['categories'] if category['id'] in used]
    # A config file may well name a class by a number.
    names = [str(name) for name in ([classes] if isinstance(classes, (str, int)) else classes)]
    missing = [name for name in names if name not in known]
    if missing or len(set(names)) < len(names):
        raise CASTError(
            f'{labels.path} has the categories {", ".join(known)}; variables.classes must be some '
            f'of them, each once, not {", ".join(names)}'
        )
    return names


def _with_categories(coco: dict, names: Sequence[str]) -> dict:
    """COCO content that lists all these categories; exports often have only those in use."""
    listed = {category['name'] for category in coco['categories']}
    missing = [name for name in names if name not in listed]
    first = 1 + max([0, *(category['id'] for category in coco['categories'])])
    added = [dict(id=number, name=name) for number, name in enumerate(missing, first)]
    return dict(coco, categories=[*coco['categories'], *added])


@dataclass(frozen=True)
class _Part:
    """Images with labels, for training or for validation.

    Args:
        coco: content of their COCO file.
        folder: of the images.
        counts: (images, classes) numbers of their instances.
    """

    coco: dict
    folder: Path
    counts: np.ndarray

    def files(self) -> set[Path]:
        """The image files, without symbolic links."""
        return {path.resolve() for path in image_paths(self.coco['images'], self.folder)}

    def without(self, ids: Set[int]) -> '_Part':
        """The same without some images."""
        kept = np.array([image['id'] not in ids for image in self.coco['images']], bool)
        return _Part(without_images(self.coco, ids), self.folder, self.counts[kept])


def image_paths(images: list[dict], folder: Path) -> list[Path]:
    """The files of COCO's image entries."""
    return [folder / image['file_name'] for image in images]


def find_images(
    images: list[dict],
    ann_file: Path,
    root: Path,
    folder: str | None = None,
    setting: str = 'variables.labeled_images',
) -> Path:
    """The folder that has all images of a COCO file: the one that is given, else that of the file
    itself, else the only one up to two levels below ``root`` or the file.

    Args:
        images: COCO's entries.
        ann_file: the file that lists them.
        root: of the data set.
        folder: of the images, relative to ``root``; None to find it.
        setting: what gives ``folder``.

    Raises:
        CASTError: there is none, or there are several.
    """
    if not images:
        raise CASTError(f'{ann_file} lists no image: make it again')
    first = images[0]['file_name']
    if folder is not None:
        places = [existing(root / folder, setting).resolve()]
    else:
        beside = ann_file.parent.resolve()
        if all(path.is_file() for path in image_paths(images, beside)):
            return beside
        places = list(
            dict.fromkeys(
                place.resolve()
                for parent in (root, ann_file.parent)
                for place in (parent, *sorted(parent.glob('*/')), *sorted(parent.glob('*/*/')))
            )
        )
    likely = [place for place in places if (place / first).is_file()]
    if not likely:
        where = places[0] if folder else f'{root} or up to two folders below it'
        fix = f'set {setting} to the folder that file_name is relative to'
        if '\\' in first:
            fix = 'write its file names with / instead of \\, as COCO does'
        raise CASTError(f'{ann_file}: image {first} is not in {where}: {fix}')
    missing = {
        place: [path for path in image_paths(images, place) if not path.is_file()]
        for place in likely
    }
    complete = [place for place in likely if not missing[place]]
    if len(complete) > 1:
        raise CASTError(
            f'the images of {ann_file} are in {complete[0]} and, by name, in {complete[1]} too: '
            f'say which with --cfg-options {setting}=FOLDER'
        )
    if not complete:
        place = min(likely, key=lambda place: len(missing[place]))
        raise CASTError(
            f'{ann_file}: {len(missing[place])} of its {len(images)} images are not there, '
            f'such as {missing[place][0]}: put them there, or take them out of the file'
        )
    return complete[0]


def hold_out(
    labeled: _Part, ann_file: str | os.PathLike, percent: float, seed: int
) -> tuple[_Part, _Part]:
    """Splits labeled images: ``percent`` of them, at least one, are the second part, to validate.

    All versions of a photo are on one side, and each side has an image with instances.

    Args:
        labeled: all of them.
        ann_file: the file, for errors.
        percent: of the images.
        seed: which they are.
    """
    images = labeled.coco['images']
    shown = {image['id'] for image, own in zip(images, labeled.counts) if own.any()}
    groups = list(ids_by_photo(images).values())
    order = [groups[place] for place in np.random.default_rng(seed).permutation(len(groups))]
    useful = [group for group in order if not shown.isdisjoint(group)]
    if len(useful) < 2:
        raise CASTError(
            f'{ann_file} has one image with instances, or versions of one: label more, or give '
            'validation images with variables.val'
        )
    number = max(1, round(len(images) * percent / 100))
    held = _first(order, number)
    if shown.isdisjoint(held):
        order.remove(useful[0])
        held = _first([useful[0], *order], number)
    elif held.issuperset(shown):
        order.remove(useful[-1])
        held = _first([*order, useful[-1]], number)
    return labeled.without(held), labeled.without({image['id'] for image in images} - held)


def _first(groups: Sequence[list[int]], number: int) -> set[int]:
    """At least ``number`` ids, from the first groups; the last one stays out."""
    chosen: set[int] = set()
    for group in groups[:-1]:
        if len(chosen) < number:
            chosen |= {*group}
    return chosen


def shared_photos(coco: dict, val: dict, val_file: str) -> str:
    """What is to be said of photos of which both sets have a version, '' if there are none."""
    held = {version_of(image['file_name']) for image in val['images']} - {None}
    names = [image['file_name'] for image in coco['images']]
    shared = [name for name in names if version_of(name) in held]
    if not shared:
        return ''
    return (
        f'{len(shared)} labeled images, such as {shared[0]}, are versions of photos in {val_file}: '
        'figures on these say little; split before augmenting'
    )


def _shared_files_line(shared: Set[Path]) -> str:
    """What is to be said of labeled images that are for validation too, '' if there are none."""
    if not shared:
        return ''
    return (
        f'{len(shared)} labeled images, such as {readable(min(shared))}, are for validation too, '
        'or copies of images that are: figures on these say little; take them out of one of the two'
    )


def list_unlabeled(
    source: Path,
    root: Path,
    known: Set[Path],
    value_range: ValueRange = None,
    held: Set[str | None] = frozenset(),
) -> tuple[Path, list[dict], dict[str, str]]:
    """The folder of the unlabeled images, these as COCO describes them, each once and without those
    in ``known`` and versions of the photos in ``held``, and the names of those that cannot be used,
    with the reason.

    Raises:
        CASTError: there are none.
    """
    folder, entries = _entries_of(source, root)
    files = {path.resolve(): path for path in entries}
    paths = [path for real, path in files.items() if real not in known]
    copies = _copies(paths, known)
    if copies:
        print(
            f'{len(copies)} images of {source}, such as {readable(min(copies))}, are copies of '
            'labeled or validation images: left out'
        )
    paths = [path for path in paths if path not in copies]
    versions = {path for path in paths if version_of(path.name) in held}
    if versions:
        print(
            f'{len(versions)} images of {source}, such as {readable(min(versions))}, are versions '
            'of photos for validation: left out'
        )
        paths = [path for path in paths if path not in versions]
    tracked = track(paths, escape(f'Reading the sizes of {len(paths)} images in {folder}'))
    sizes, problems = read_sizes(tracked, value_range)
    unreadable = {entries[path]['file_name']: why for path, why in problems.items()}
    images = [
        dict(id=number) | entries[path] | dict(height=height, width=width)
        for number, (path, (height, width)) in enumerate(sizes.items(), start=1)
    ]
    if not images:
        raise CASTError(
            f'{source} has no usable image that is not labeled already '
            f'({" ".join(IMAGE_SUFFIXES)}): give another folder or JSON as variables.unlabeled'
            + ''.join(f'; the first that cannot: {why}' for why in [*unreadable.values()][:1])
        )
    return folder, images, unreadable


def _entries_of(source: Path, root: Path) -> tuple[Path, dict[Path, dict]]:
    """The folder of the images of a folder or COCO JSON, and COCO's entries by path."""
    if source.is_file():
        listed = read_image_list(source)['images']
        folder = find_images(listed, source, root, setting='variables.data_root')
        return folder, dict(zip(image_paths(listed, folder), listed))
    found = list_folder(source)
    for line in found.remarks():
        print(f'{source}: {line}')
    return source, {
        path: dict(file_name=path.relative_to(source).as_posix()) for path in found.images
    }


def _copies(paths: Iterable[Path], known: Iterable[Path]) -> set[Path]:
    """Those of some files that are known, or have the name and the bytes of one that is."""
    by_name: dict[str, list[Path]] = {}
    for path in known:
        by_name.setdefault(path.name, []).append(path)
    return {
        path
        for path in paths
        if (others := by_name.get(path.name))
        and path.is_file()  # not a link to nowhere
        and any(filecmp.cmp(path, other, shallow=False) for other in others)
    }


def write_unreadable(problems: Mapping[str, str], folder: Path, path: Path) -> str:
    """Writes a list of the images that cannot be used and why; what is to be said of them, ''
    without.
    """
    if not problems:
        path.unlink(missing_ok=True)  # of an earlier run
        return ''
    write_atomically(path, ''.join(f'{name}\t{why}\n' for name, why in problems.items()))
    first = ', '.join([*problems][:3]) + (' ...' if len(problems) > 3 else '')
    return (
        f'{len(problems)} unlabeled images in {folder} cannot be used and are left out: {first}; '
        f'{path} lists them'
    )
