"""How networks get images: their size, windows, and the objects in one."""

import math
from dataclasses import dataclass

from mmcast.coco.data_facts import DataFacts, MeasuredData
from mmcast.pipeline.decisions import Decisions, tenth_more

SMALLEST = 16  # pixels: side of a small object in a network's input, four pixels of its masks
SMALLEST_IMAGE = 256  # pixels: short side that a student gets images in, at least
# Times as large as on whole images objects must be in windows, which cost time and context.
WORTH_WINDOWS = 1.5
LARGER_WINDOW = 1.25  # times a crop that a window may be, if fewer cover an image then
LEAST_QUERIES = 30
FINEST_WINDOW = 6  # windows along the short side, without overlap, at most
# Pixels that a network may be shown of a whole image, as of those of Cityscapes; more where it is
# not four times as long as high.
LARGEST_IMAGE = 1024 * 2048
WHOLE = 100_000  # pixels, longer than any side


@dataclass(frozen=True)
class View:
    """How a network gets its images.

    Attributes:
        short, long: Sides in pixels that an image is brought to, at most.
        crop: Side of a training crop.
        ratios: Smallest and largest factor on ``short`` in training.
        window, overlap: Of prediction in windows; 0 for whole images.
        num_queries: Objects that are to be found in an image or window.
    """

    short: int
    long: int
    crop: int
    ratios: tuple[float, float]
    window: int = 0
    overlap: int = 0
    num_queries: int = 0

    def transforms(self) -> dict[str, dict]:
        """Options of the transforms of the data."""
        scale = [self.long, self.short]
        return dict(
            Resize=dict(scale=scale),
            RandomResize=dict(scale=scale, ratio_range=list(self.ratios)),
            RandomCrop=dict(crop_size=[self.crop, self.crop]),
        )

    def windows(self, **options: int) -> dict | None:
        """Options of ``Windows``, with other ones of its own; None for whole images."""
        if not self.window:
            return None
        return dict(size=self.window, overlap=self.overlap, **options)


def rounded(value: float, divisor: int) -> int:
    """The next multiple, upwards."""
    return max(divisor, math.ceil(value / divisor - 1e-9) * divisor)


@dataclass(frozen=True)
class Limit:
    """The largest crop of a training step.

    Attributes:
        crop: Its side in pixels.
        whose: What holds no larger one, for the table.
        divisor: Sides of the network's input are multiples of it.
    """

    crop: int
    whose: str
    divisor: int


def choose_view(
    decisions: Decisions,
    data: MeasuredData,
    limit: Limit,
    max_queries: int,
    start_queries: int = 0,
) -> View:
    """Decides how a student gets its images.

    Args:
        decisions: Gets the rows ``image_size``, ``window``, ``window_overlap`` or, where images are
            too long, ``longest_side``, and ``num_queries``.
        data: What is looked for.
        limit: Of a training step.
        max_queries: Most objects that are found in an image or window.
        start_queries: So many its start weights have, and all of them stay.

    Raises:
        CASTError: A value that a person gave is none.
    """
    facts = data.facts
    size = int(decisions.choose('image_size', lambda: _image_size(facts, limit)))
    window = int(
        decisions.choose(
            'window', lambda: _window(facts, size, limit, max_queries), 0, limit.divisor
        )
    )
    overlap = min(rounded(facts.large_extent * size, 32), window // 2) if window else 0
    most = data.most_in_windows(window / size, overlap / size) if window else facts.most_instances
    if window:
        extent = f'large objects (95th percentile) are {facts.large_extent * size:.0f} px long: '
        whole = 'each is whole in a window' if overlap < window // 2 else 'some are put together'
        decisions.add('window_overlap', overlap, extent + whole)

    crop = rounded(min(window or size, limit.crop), limit.divisor)
    return View(
        short=size,
        long=WHOLE if window else _longest_side(decisions, data, size, crop),
        crop=crop,
        ratios=(0.8, 1.25) if window else (0.5, 2.0),
        window=window,
        overlap=overlap,
        num_queries=int(
            decisions.choose(
                'num_queries',
                lambda: _queries(most, max_queries, start_queries, 'window' if window else 'image'),
                max(1, start_queries),
            )
        ),
    )


def _fewest_windows(size: int, overlap: float, limit: Limit) -> tuple[int, int]:
    """Side of the windows that cover a length, and their number: a little larger than a crop where
    one less will do then.
    """
    crop, overlap = limit.crop, min(overlap, limit.crop / 2)
    largest = max(crop, crop * LARGER_WINDOW // limit.divisor * limit.divisor)
    number = 2
    while (size + (number - 1) * overlap) / number > largest:
        number += 1
    return max(crop, rounded((size + (number - 1) * overlap) / number, limit.divisor)), number


def _queries(most: int, max_queries: int, start_queries: int, where: str) -> tuple[int, str]:
    """How many objects are found in an image or window, of which the fullest has ``most``."""
    least = max(min(LEAST_QUERIES, max_queries), start_queries)
    found = max(min(max(least, tenth_more(most)), max_queries), start_queries)
    if found < most:
        return found, (
            f'the fullest {where} has {most} objects, of which {most - found} cannot be found: '
            'raise variables.max_queries'
        )
    return found, (
        f'a tenth more than the {most} objects of the fullest {where}, in tens; '
        f'{least} to {max_queries}'
    )


def _image_size(facts: DataFacts, limit: Limit) -> tuple[int, str]:
    """Short side in pixels that the student gets images in."""
    needed, native = SMALLEST / facts.small_side, facts.short_side
    usual = min(max(native, SMALLEST_IMAGE), limit.crop)
    size = max(usual, min(needed, 2 * native))
    small = 'small objects'
    if size > limit.crop and facts.large_extent * size > limit.crop / 2:
        size = max(limit.crop, limit.crop / 2 / facts.large_extent)
        small = f'small objects want {needed:.0f}, large ones that half a window holds them; small '
        small += 'ones'
    if limit.crop < size < WORTH_WINDOWS * usual:
        small = f'windows would show objects less than {WORTH_WINDOWS} times as large; small ones'
        size = usual
    if size == native:
        why = 'that of the images'
    elif size == SMALLEST_IMAGE == usual and native < SMALLEST_IMAGE:
        why = f'the images have {native:.0f}, too little for an encoder'
    elif size > usual:
        why = f'the images have {native:.0f}; small objects want more'
    else:
        why = f'the images have {native:.0f}, a crop for {limit.whose} {limit.crop}'
    return round(size), f'{why}; {small} are {facts.small_side * size:.0f} px large then'


def _longest_side(decisions: Decisions, data: MeasuredData, size: int, crop: int) -> int:
    """Long side in pixels of whole images, at most; a longer image loses pixels of its short side
    too.
    """
    facts = data.facts
    fitting = min(facts.longest_aspect, LARGEST_IMAGE / size**2)
    long = math.ceil(max(4, facts.aspect, fitting) * size)
    smaller = int((data.aspects * size > long).sum())
    if smaller:
        decisions.add(
            'longest_side',
            long,
            f'{smaller} of {len(data.aspects)} images are longer and get smaller, down to a short '
            f'side of {long / facts.longest_aspect:.0f}: variables.window={crop} shows all images '
            f'at {size}, in windows',
        )
    return long


def _window(facts: DataFacts, size: int, limit: Limit, max_queries: int) -> tuple[int, str]:
    """Side of its windows in pixels of its input, 0 for whole images."""
    if size > limit.crop:
        side, number = _fewest_windows(size, facts.large_extent * size, limit)
        return side, (
            f'images of {size} px do not fit into a step of training: {number} windows cover a side'
        )
    if facts.most_instances > max_queries:
        side = max(size * math.sqrt(0.8 * max_queries / facts.most_instances), size / FINEST_WINDOW)
        return max(int(side) // limit.divisor, 1) * limit.divisor, (
            f'an image has up to {facts.most_instances} objects, the student finds {max_queries}'
        )
    return 0, f'whole images: at most {facts.most_instances} objects in one'
