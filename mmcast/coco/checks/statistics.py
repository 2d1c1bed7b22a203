"""How many instances of which class a data set has, and how large they are."""

from collections.abc import Sequence

import numpy as np

_QUANTILES = (0, 5, 25, 50, 75, 95, 100)
_SMALL, _LARGE = (
    32**2,
    96**2,
)  # pixels; the borders that COCO's AP of small, medium and large objects has


def count_instances(instances: np.ndarray, names: Sequence[str], images: int, groups: int) -> dict:
    """Counts of the valid instances.

    Args:
        instances: (N, 3) image number, index of the class in ``names``, area in pixels.
        names: of the classes.
        images: how many there are.
        groups: how many annotations stand for groups.

    Returns:
        ``images``, ``instances``, ``groups``; under ``classes`` by name its ``instances`` and
        ``images``; and under ``area`` the ``quantiles`` (pixels, by percent) and the numbers
        ``small``, ``medium`` and ``large``, None if there is no instance.
    """
    classes = instances[:, 1].astype(int)
    per_class = np.bincount(classes, minlength=len(names))
    pairs = np.unique(instances[:, :2].astype(int), axis=0)
    images_per_class = np.bincount(pairs[:, 1], minlength=len(names))
    return dict(
        images=images,
        instances=len(instances),
        groups=groups,
        classes={
            name: dict(instances=int(per_class[place]), images=int(images_per_class[place]))
            for place, name in enumerate(names)
        },
        area=_describe_areas(instances[:, 2]) if len(instances) else None,
    )


def _describe_areas(areas: np.ndarray) -> dict:
    quantiles = dict(zip(map(str, _QUANTILES), np.percentile(areas, _QUANTILES).round(1).tolist()))
    small, large = int((areas < _SMALL).sum()), int((areas >= _LARGE).sum())
    return dict(quantiles=quantiles, small=small, medium=len(areas) - small - large, large=large)


def describe_statistics(statistics: dict) -> list[str]:
    """Lines for people."""
    width = max(map(len, ('class', *statistics['classes'])))
    lines = [
        (
            f'{statistics["images"]} images, {statistics["instances"]} valid instances, '
            f'{statistics["groups"]} groups'
        ),
        f'{"class":{width}}  instances   images',
    ]
    lines += [
        f'{name:{width}}  {count["instances"]:9}  {count["images"]:7}'
        for name, count in statistics['classes'].items()
    ]
    area = statistics['area']
    if area:
        quantiles = ', '.join(
            f'{percent} % {value:g}' for percent, value in area['quantiles'].items()
        )
        lines.append(f'instance area in pixels, quantiles: {quantiles}')
        lines.append(
            f'{area["small"]} small (below 32 x 32), {area["medium"]} medium, {area["large"]} '
            'large (from 96 x 96)'
        )
    return lines
