"""What a data set looks like to a network: sizes of images and objects, and how many there are."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mmcast.coco.reading import Labels, read_image_list, read_labels
from mmcast.masks.tiling import Windows

_GRID = 1000  # pixels of an image's short side in which places of objects are counted


@dataclass(frozen=True)
class Objects:
    """The objects of some images, one row each.

    Attributes:
        image: (N,) index of the image.
        label: (N,) index of the class.
        side: (N,) square root of the area in short sides of the image.
        extent: (N,) longer side of the box in short sides of the image.
        center: (N, 2) row and column of the box's centre in short sides of the image.
    """

    image: np.ndarray
    label: np.ndarray
    side: np.ndarray
    extent: np.ndarray
    center: np.ndarray


@dataclass(frozen=True)
class DataFacts:
    """A data set in numbers.

    Sizes of objects are in short sides of their image, as networks get images of a given short
    side.

    Attributes:
        labeled: Number of labeled images.
        val: Of validation images.
        unlabeled: Of unlabeled images.
        empty: Number of labeled and validation images without an object.
        short_side: Median of all images, in pixels.
        aspect: Longest by shortest side, median.
        longest_aspect: The same, of the longest image.
        portrait: Fraction of images that are higher than wide.
        instances: Number of objects by class, labeled images only.
        most_instances: Largest number of objects in an image.
        median_instances: Of images with objects.
        small_side: Side of a small object, the 10th percentile of the square roots of areas.
        median_side: The 50th percentile.
        large_extent: Longer side of the box of a large object, the 95th percentile.
    """

    labeled: int
    val: int
    unlabeled: int
    empty: int
    short_side: float
    aspect: float
    longest_aspect: float
    portrait: float
    instances: dict[str, int]
    most_instances: int
    median_instances: float
    small_side: float
    median_side: float
    large_extent: float

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class MeasuredData:
    """:class:`DataFacts`, and what is needed to count objects in windows.

    Attributes:
        facts: The numbers.
        aspects: (images,) longest by shortest side of all images.
        sizes: (images, 2) height and width of the labeled and validation images.
        objects: Of these.
    """

    facts: DataFacts
    aspects: np.ndarray
    sizes: np.ndarray
    objects: Objects

    def most_in_windows(self, window: float, overlap: float) -> int:
        """The largest number of objects with their centre in one window.

        Args:
            window: Its side, in short sides of an image.
            overlap: What neighbours share, likewise.
        """
        grid = Windows(
            round(window * _GRID), min(round(overlap * _GRID), round(window * _GRID) - 1)
        )
        most = 0
        for number, size in enumerate(self.sizes):
            centers = self.objects.center[self.objects.image == number] * _GRID
            if len(centers) <= most:
                continue
            for place in grid.places((size / size.min() * _GRID).round().astype(int).tolist()):
                inside = (centers >= place) & (centers < np.add(place, grid.size))
                most = max(most, int(inside.all(1).sum()))
        return most


def measure_data(labeled: str, val: str, unlabeled: str, classes: Sequence[str]) -> MeasuredData:
    """Reads the files that the data step wrote.

    Args:
        labeled: COCO JSON of the labeled images; groups (``iscrowd``) do not count.
        val: The same of the validation images.
        unlabeled: COCO JSON that lists the unlabeled images.
        classes: Names to learn.

    Raises:
        CASTError: A file is missing or cannot be used.
    """
    parts = [read_labels(labeled), read_labels(val)]
    images = [image for part in parts for image in part.content['images']]
    listed = [*images, *read_image_list(unlabeled)['images']]
    sizes, all_sizes = (
        np.array([(image['height'], image['width']) for image in some], float).reshape(-1, 2)
        for some in (images, listed)
    )
    objects, number_labeled = _objects(parts, sizes, list(classes))
    counts = np.bincount(objects.image, minlength=len(sizes))
    per_class = np.bincount(objects.label[:number_labeled], minlength=len(classes))
    short = all_sizes.min(1)
    aspects = all_sizes.max(1) / short
    filled = counts[counts > 0]
    facts = DataFacts(
        labeled=len(parts[0].content['images']),
        val=len(parts[1].content['images']),
        unlabeled=len(listed) - len(images),
        empty=int((counts == 0).sum()),
        short_side=float(np.median(short)),
        aspect=float(np.median(aspects)),
        longest_aspect=float(aspects.max()),
        portrait=float((all_sizes[:, 0] > all_sizes[:, 1]).mean()),
        instances=dict(zip(classes, per_class.tolist())),
        most_instances=int(counts.max()),
        median_instances=float(np.median(filled)),
        small_side=float(np.percentile(objects.side, 10)),
        median_side=float(np.percentile(objects.side, 50)),
        large_extent=float(np.percentile(objects.extent, 95)),
    )
    return MeasuredData(facts, aspects, sizes, objects)


def _objects(
    parts: Sequence[Labels], sizes: np.ndarray, classes: Sequence[str]
) -> tuple[Objects, int]:
    """The objects of several COCO files, and how many of them are of the first.

    Args:
        parts: Images of all of them, in order, are those of ``sizes``.
        sizes: (images, 2) height and width.
        classes: Names; others do not count.
    """
    rows, first, of_first = [], 0, 0
    for part in parts:
        content = part.content
        labels = {
            category['id']: classes.index(category['name'])
            for category in content['categories']
            if category['name'] in classes
        }
        places = {image['id']: first + i for i, image in enumerate(content['images'])}
        rows += [  # the mask's own area: some tools write that of its box
            (places[ann['image_id']], labels[ann['category_id']], area, *ann['bbox'])
            for ann, area in zip(content['annotations'], part.rows.areas, strict=True)
            if ann['category_id'] in labels and not ann.get('iscrowd')
        ]
        of_first = of_first or len(rows)
        first += len(places)
    table = np.array(rows, float).reshape(-1, 7)
    image, label = table[:, 0].astype(int), table[:, 1].astype(int)
    short = sizes[image].min(1)
    left, top, width, height = table[:, 3:].T
    center = np.stack([top + height / 2, left + width / 2], 1) / short[:, None]
    extent = np.maximum(width, height) / short
    return Objects(image, label, np.sqrt(table[:, 2]) / short, extent, center), of_first
