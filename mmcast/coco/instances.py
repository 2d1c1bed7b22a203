"""Are there instances to learn from, and not more than a model can find?"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mmcast.coco.reading import Labels
from mmcast.errors import CASTError

MANY_GROUPS = 0.5  # of all annotations
FEW = 10  # objects of a class that is measured
LEAST_DETECTIONS = 100  # predictions of a class in an image that COCO's AP counts


def check_instances(labels: Labels, counts: np.ndarray) -> None:
    """Checks that there is something to train on.

    Args:
        labels: those of the training images.
        counts: numbers of their instances of the classes to learn.

    Raises:
        CASTError: there is no instance.
    """
    if counts.sum():
        return
    if not labels.content['annotations']:
        raise CASTError(f'{labels.path} has no annotation: give the file of the labeled images')
    if labels.crowds:
        raise CASTError(
            f'{labels.path}: {labels.crowds} of {len(labels.rows.crowds)} annotations have '
            'iscrowd 1, which says that nobody separated the objects, and there is no other '
            'instance of the classes to learn: tools that write brush masks so (datumaro from VOC '
            'masks, CVAT) mean single objects; if each mask is one, set '
            'variables.crowd_as_instances=True, or write iscrowd 0'
        )
    raise CASTError(
        f'{labels.path} has no instance of the classes to learn: give other classes or labels'
    )


def groups_line(labels: Labels) -> str:
    """What is to be said of groups, '' if there are none."""
    if not labels.crowds:
        return ''
    share = labels.crowds / len(labels.rows.crowds)
    more = (
        '; if each of them is one object, set variables.crowd_as_instances=True'
        if share >= MANY_GROUPS
        else ''
    )
    return (
        f'{labels.path}: {labels.crowds} of {len(labels.rows.crowds)} annotations ({share:.0%}) '
        f'are groups (iscrowd 1), which are not trained on{more}'
    )


def count_objects(annotations: Iterable[Mapping], min_area: float = 0) -> Counter:
    """Single objects of each category id, of as many pixels or more."""
    return Counter(
        annotation['category_id']
        for annotation in annotations
        if not annotation['iscrowd'] and annotation['area'] >= min_area
    )


def beyond_limit(counts: np.ndarray, limit: int) -> str:
    """What is to be said of images with more instances than a model can find, '' without such.

    Args:
        counts: (images,) their instances.
        limit: how many a model can find in an image.
    """
    over = counts[counts > limit]
    if not len(over):
        return ''
    return (
        f'{len(over)} of {len(counts)} images have more than {limit} instances, up to '
        f'{over.max()}; of these {int((over - limit).sum())} cannot be found'
    )


def rare_line(counts: Mapping[str, int], which: str) -> str:
    """What is to be said of classes whose AP a few objects decide, '' without such.

    Args:
        counts: objects by class name.
        which: where, in a few words.
    """
    few = [f'{number} of {name}' for name, number in counts.items() if 0 < number < FEW]
    if not few or len(counts) < 2:
        return ''
    return (
        f'{which} have few objects of some classes ({", ".join(few)}): mask AP is the mean over '
        'classes, and such a class moves it by chance; compare by classes, or take more images'
    )


def empty_lines(counts: np.ndarray, names: Sequence[str], which: str) -> list[str]:
    """What is to be said of classes and images without an instance; empty if all have some.

    Args:
        counts: (images, classes) numbers of instances.
        names: of the classes.
        which: the set, in a word.
    """
    lines = []
    missing = [name for name, count in zip(names, counts.sum(0)) if not count]
    if missing:
        lines.append(f'no {which} image has an instance of {", ".join(missing)}')
    empty = int((~counts.any(1)).sum())
    if empty:
        lines.append(
            f'{empty} of {len(counts)} {which} images have no instance: they are taken to show none'
        )
    return lines
