"""Which labels of a file the settings of a data set mean: what mmcast trains on, and exports."""

from collections.abc import Mapping, Sequence
from os import PathLike

from mmcast.coco.reading import read_coco
from mmcast.errors import CASTError
from mmcast.pseudo_labels.filters import expand_threshold, thresholds_from_data
from mmcast.pseudo_labels.threshold_file import read_thresholds


def check_has_images(content: dict, path: str | PathLike) -> None:
    """Raises CASTError if none of a file's images could be labeled.

    Args:
        content: as :func:`~mmcast.pseudo_labels.store.read_pseudo_labels` returns it.
        path: of the file.
    """
    if not content['images']:
        raise CASTError(
            f'{path} has no image: none of {len(content.get("unreadable", []))} could be read; '
            'repair them and make it again with mmcast label'
        )


def match_classes(
    content: dict, names: Sequence[str], path: str | PathLike, fix: str
) -> dict[str, int]:
    """Category id by class name, in the order of ``names``.

    Args:
        content: of the file.
        names: of the classes.
        path: of the file, for the message.
        fix: what to do where it lacks one, likewise.

    Raises:
        CASTError: the file lacks one of them.
    """
    ids = {category['name']: category['id'] for category in content['categories']}
    missing = [name for name in names if name not in ids]
    if missing:
        raise CASTError(f'{path} has no class {", ".join(missing)}, it has {", ".join(ids)}: {fix}')
    return {name: ids[name] for name in names}


def choose_thresholds(
    content: dict,
    ids: Mapping[str, int],
    thresholds: Mapping[str, float | Mapping[str, float]],
    thresholds_from: Mapping | None,
    path: str | PathLike,
) -> tuple[dict[str, dict[int, float]], str]:
    """The thresholds as :class:`~mmcast.pseudo_labels.filters.LabelFilter` takes them.

    Args:
        content: of the file, with all its annotations.
        ids: category id by class name.
        thresholds: by score, as a config has them.
        thresholds_from: likewise.
        path: of the file, for messages.

    Returns:
        Thresholds by score and category id; and a line that says those set from data, or ''.

    Raises:
        CASTError: the names are not those of the classes, or there is nothing to set them from.
    """
    chosen = {
        score: expand_threshold(threshold, ids, f'{score}_thr of {path}')
        for score, threshold in thresholds.items()
    }
    if thresholds_from is None:
        return chosen, ''
    source = dict(thresholds_from)
    if 'labeled' in source:
        source['labeled'] = read_coco(source['labeled'])
    if 'held_out' in source:
        source['held_out'] = read_thresholds(source['held_out'], ids)
    found = thresholds_from_data(content['annotations'], len(content['images']), ids, **source)
    lowest = chosen['score']
    chosen['score'] = {category: max(found[category], lowest[category]) for category in found}
    shown = ', '.join(f'{name} {chosen["score"][category]:.3f}' for name, category in ids.items())
    return chosen, f'{path}: thresholds on score: {shown}'
