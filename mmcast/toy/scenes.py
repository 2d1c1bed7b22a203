"""Draw one procedural street scene: an RGB image and a Cityscapes instance id map.

Only integer drawing, IEEE arithmetic (+ - * /) and uniform random numbers are used, so that a seed
gives the same pixels on every machine. Objects are described in metres, x to the right and y up
from the ground under their middle.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np

PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = 24, 25, 26, 27, 28, 31, 32, 33
DYNAMIC, ROAD, SIDEWALK, RAIL, BUILDING, POLE, SIGN, VEGETATION, SKY = (
    5,
    7,
    8,
    10,
    11,
    17,
    20,
    21,
    23,
)
CLASS_WEIGHTS = {
    PERSON: 0.30,
    CAR: 0.30,
    BICYCLE: 0.12,
    MOTORCYCLE: 0.09,
    TRUCK: 0.07,
    BUS: 0.07,
    TRAIN: 0.05,
}
MIN_VISIBLE = 12  # pixels; what is left of a more hidden instance is 'dynamic', void in Cityscapes
GROUP_CHANCE = (
    0.12  # scenes with a distant crowd that carries one bare label id instead of instances
)
CAMERA_HEIGHT = (
    2.4  # metres: an object that stands d pixels below the horizon has d / 2.4 pixels a metre
)
SUPERSAMPLING = 2
FRACTION_BITS = 4  # OpenCV draws with coordinates in 1/16 pixel

Colour = tuple[int, int, int]
Point = Sequence[float]  # x, y
Points = Sequence[Point] | np.ndarray
T = TypeVar('T')


@dataclass(frozen=True)
class Domain:
    """How one domain looks; colours are RGB, strengths are fractions of full scale."""

    sky: tuple[Colour, Colour]
    road: Colour
    sidewalk: Colour
    buildings: tuple[Colour, ...]
    windows: Colour
    vegetation: tuple[Colour, ...]
    vehicles: tuple[Colour, ...]
    clothes: tuple[Colour, ...]
    glass: Colour
    haze: Colour
    haze_strength: tuple[float, float]
    light: tuple[float, float, float]
    texture: float
    noise: float
    rain: int
    headlights: bool
    stretch: float  # length of vehicles relative to the source domain
    num_objects: tuple[int, int]
    rider: int = RIDER  # what the labels call somebody on a bicycle or motorcycle


DOMAINS: dict[str, Domain | None] = {
    'source': Domain(
        sky=((92, 160, 232), (196, 224, 246)),
        road=(112, 110, 116),
        sidewalk=(196, 184, 176),
        buildings=(
            (214, 160, 110),
            (226, 202, 150),
            (188, 98, 80),
            (172, 182, 196),
            (238, 226, 204),
        ),
        windows=(86, 112, 142),
        vegetation=((58, 148, 60), (84, 172, 62), (44, 120, 62)),
        vehicles=(
            (214, 36, 40),
            (36, 84, 204),
            (250, 206, 40),
            (244, 244, 246),
            (28, 152, 92),
            (238, 122, 30),
        ),
        clothes=(
            (206, 40, 64),
            (40, 84, 190),
            (246, 202, 66),
            (36, 146, 100),
            (126, 62, 162),
            (42, 44, 60),
        ),
        glass=(70, 110, 140),
        haze=(210, 226, 240),
        haze_strength=(0.0, 0.12),
        light=(1.0, 1.0, 1.0),
        texture=0.0,
        noise=0.0,
        rain=0,
        headlights=False,
        stretch=1.0,
        num_objects=(2, 6),
    ),
    'target': Domain(
        sky=((64, 66, 108), (226, 150, 118)),
        road=(84, 84, 98),
        sidewalk=(126, 118, 124),
        buildings=((104, 92, 108), (128, 112, 112), (88, 82, 104), (142, 122, 112), (96, 98, 118)),
        windows=(255, 206, 112),
        vegetation=((52, 84, 74), (74, 92, 66), (92, 84, 56)),
        vehicles=(
            (48, 50, 62),
            (128, 44, 56),
            (168, 166, 168),
            (58, 98, 112),
            (128, 112, 76),
            (206, 202, 196),
        ),
        clothes=(
            (50, 50, 66),
            (118, 76, 66),
            (78, 98, 128),
            (158, 140, 122),
            (84, 56, 98),
            (176, 170, 170),
        ),
        glass=(148, 156, 172),
        haze=(170, 148, 150),
        haze_strength=(0.15, 0.45),
        light=(1.0, 0.95, 1.04),
        texture=0.07,
        noise=0.03,
        rain=40,
        headlights=True,
        stretch=0.9,
        num_objects=(3, 7),
    ),
    'varied': None,  # every scene looks different: random_domain
}


def random_domain(rng: np.random.Generator) -> Domain:
    """How one scene of the domain 'varied' looks: any colours, light and weather, as on the web."""

    def colours(number: int, low: int = 30, high: int = 250) -> tuple[Colour, ...]:
        return tuple(tuple(int(c) for c in rng.integers(low, high, 3)) for _ in range(number))

    grey, haze = int(rng.integers(60, 150)), float(rng.uniform(0, 0.35))
    return Domain(
        sky=colours(2, 60),
        road=tuple(grey + int(c) for c in rng.integers(-8, 14, 3)),
        sidewalk=colours(1, 100, 200)[0],
        buildings=colours(5, 70, 240),
        windows=colours(1, 60)[0],
        vegetation=colours(3, 40, 180),
        vehicles=colours(6),
        clothes=colours(6),
        glass=colours(1, 60, 190)[0],
        haze=colours(1, 130, 240)[0],
        haze_strength=(0.0, haze),
        light=tuple(rng.uniform(0.85, 1.1, 3)),
        texture=float(rng.uniform(0, 0.08)),
        noise=float(rng.uniform(0, 0.035)),
        rain=int(pick(rng, (0, 0, 30))),
        headlights=bool(rng.random() < 0.4),
        stretch=float(rng.uniform(0.9, 1.05)),
        num_objects=(2, 7),
        rider=PERSON,
    )  # captions on the web do not tell riders from other people


def scene_domain(name: str, rng: np.random.Generator) -> Domain:
    """The looks of one scene of the domain called `name`."""
    return DOMAINS[name] or random_domain(rng)


class Canvas:
    """Colours and instance ids that are painted together, at twice the final resolution."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        shape = (height * SUPERSAMPLING, width * SUPERSAMPLING)
        self.image = np.zeros((*shape, 3), np.uint8)
        self.ids = np.zeros(shape, np.uint16)

    def polygon(self, points: Points, colour: Colour | None, label: int | None) -> None:
        """Fill the polygon `points` (N, 2), in final pixels; None leaves colours or ids as they
        are.
        """
        fixed = np.rint(np.asarray(points) * (SUPERSAMPLING << FRACTION_BITS)).astype(np.int32)
        if colour is not None:
            cv2.fillPoly(self.image, [fixed], colour, shift=FRACTION_BITS)
        if label is not None:
            cv2.fillPoly(self.ids, [fixed], label, shift=FRACTION_BITS)

    def circle(
        self,
        centre: Point,
        radius: float,
        colour: Colour | None,
        label: int | None,
        width: float = 0,
    ) -> None:
        """A disc, or in the colours a ring of `width` pixels; the ids are always those of the whole
        disc.
        """
        x, y, r = (round(value * (SUPERSAMPLING << FRACTION_BITS)) for value in (*centre, radius))
        thickness = max(1, round(width * SUPERSAMPLING)) if width else -1
        if colour is not None:
            cv2.circle(self.image, (x, y), r, colour, thickness, shift=FRACTION_BITS)
        if label is not None:
            cv2.circle(self.ids, (x, y), r, label, -1, shift=FRACTION_BITS)

    def line(
        self, start: Point, end: Point, width: float, colour: Colour, label: int | None
    ) -> None:
        """A straight line of `width` pixels."""
        ends = [
            tuple(round(v * (SUPERSAMPLING << FRACTION_BITS)) for v in point)
            for point in (start, end)
        ]
        thickness = max(1, round(width * SUPERSAMPLING))
        cv2.line(self.image, *ends, colour, thickness, shift=FRACTION_BITS)
        if label is not None:
            cv2.line(self.ids, *ends, label, thickness, shift=FRACTION_BITS)

    def rendered(self) -> tuple[np.ndarray, np.ndarray]:
        """The image (H, W, 3) uint8 as the mean of its samples and the ids (H, W) uint16 as one of
        them.
        """
        s = SUPERSAMPLING
        samples = self.image.reshape(self.height, s, self.width, s, 3)
        mean = (samples.sum(axis=(1, 3), dtype=np.uint16) + s * s // 2) // (s * s)
        return mean.astype(np.uint8), np.ascontiguousarray(self.ids[::s, ::s])


def mix(colour: Colour, other: Colour, amount: float) -> Colour:
    """`colour` moved towards `other`; amount 0 is `colour`, 1 is `other`."""
    red, green, blue = (round(a + (b - a) * amount) for a, b in zip(colour, other))
    return red, green, blue


@dataclass(frozen=True)
class Pen:
    """Draws an object described in metres at its position, in the haze of its distance."""

    canvas: Canvas
    x: float  # pixels: the middle of the object
    y: float  # pixels: the ground under it
    scale: float  # pixels a metre
    flip: int  # 1 or -1: faces right or left
    stretch: float
    haze: Colour
    haze_amount: float
    label: int  # instance id

    def hazy(self, colour: Colour) -> Colour:
        return mix(colour, self.haze, self.haze_amount)

    def place(self, x: float, y: float) -> tuple[float, float]:
        return self.x + self.flip * x * self.stretch * self.scale, self.y - y * self.scale

    def polygon(self, points: Points, colour: Colour) -> None:
        self.canvas.polygon([self.place(*p) for p in points], self.hazy(colour), self.label)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self.canvas.circle(self.place(x, y), radius * self.scale, self.hazy(colour), self.label)

    def ring(self, x: float, y: float, radius: float, width: float, colour: Colour) -> None:
        self.canvas.circle(
            self.place(x, y), radius * self.scale, self.hazy(colour), self.label, width * self.scale
        )

    def line(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        self.canvas.line(
            self.place(*start), self.place(*end), width * self.scale, self.hazy(colour), self.label
        )

    def cover(self, points: Points) -> None:
        """Add a region to the mask alone: Cityscapes outlines a bicycle with what shows through its
        frame.
        """
        self.canvas.polygon([self.place(*p) for p in points], None, self.label)

    def lamp(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A light: the haze does not dim it and it adds nothing to the mask."""
        self.canvas.circle(self.place(x, y), radius * self.scale, colour, None)


TYRE, HUB, DARK = (24, 24, 28), (150, 150, 156), (40, 40, 46)
HEAD_LAMP, TAIL_LAMP = (255, 246, 206), (226, 30, 30)
SKIN = ((236, 196, 164), (198, 146, 108), (126, 84, 58))


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[rng.integers(len(choices))]


def shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(c * factor)) for c in colour)
    return red, green, blue


def draw_wheel(pen: Pen, x: float, radius: float) -> None:
    pen.disc(x, radius, radius, TYRE)
    pen.disc(x, radius, radius * 0.5, HUB)


def draw_lights(pen: Pen, domain: Domain, front: float, rear: float, height: float) -> None:
    pen.box(front - 0.2, height - 0.1, front, height + 0.1, HEAD_LAMP)
    pen.box(rear, height - 0.1, rear + 0.15, height + 0.1, TAIL_LAMP)
    if domain.headlights:
        pen.lamp(front, height, 0.26, HEAD_LAMP)
        pen.lamp(rear, height, 0.16, TAIL_LAMP)


def draw_person(pen: Pen, domain: Domain, rng: np.random.Generator) -> None:
    shirt, trousers, skin = pick(rng, domain.clothes), pick(rng, domain.clothes), pick(rng, SKIN)
    step, swing = rng.uniform(0.05, 0.28), rng.uniform(0.0, 0.25)
    pen.polygon(
        [(-0.2, 0.9), (0.02, 0.9), (0.08 - step, 0), (-0.12 - step, 0)], shade(trousers, 0.8)
    )
    pen.polygon([(-0.02, 0.9), (0.2, 0.9), (0.12 + step, 0), (-0.08 + step, 0)], trousers)
    pen.polygon([(-0.24, 1.42), (0.24, 1.42), (0.21, 0.82), (-0.21, 0.82)], shirt)
    pen.line((-0.2, 1.36), (-0.22 - swing, 0.88), 0.13, shade(shirt, 0.75))
    pen.line((0.2, 1.36), (0.2 + swing, 0.88), 0.13, shade(shirt, 0.75))
    pen.disc(0, 1.6, 0.17, skin)
    pen.box(-0.15, 1.64, 0.13, 1.79, pick(rng, domain.clothes))


def draw_rider(pen: Pen, domain: Domain, rng: np.random.Generator) -> None:
    """A rider is an instance of its own, drawn over the bicycle or motorcycle at the same place."""
    shirt, trousers = pick(rng, domain.clothes), pick(rng, domain.clothes)
    knee = rng.uniform(0.2, 0.34)
    pen.line((-0.22, 0.98), (knee, 0.78), 0.2, trousers)
    pen.line((knee, 0.78), (0.08, 0.28), 0.16, trousers)
    pen.polygon([(-0.38, 0.92), (-0.06, 0.9), (0.32, 1.42), (0.06, 1.54)], shirt)
    pen.line((0.2, 1.38), (0.5, 1.06), 0.12, shade(shirt, 0.75))
    pen.disc(0.28, 1.68, 0.18, pick(rng, SKIN))
    pen.polygon([(0.08, 1.7), (0.46, 1.74), (0.38, 1.9), (0.16, 1.9)], pick(rng, domain.vehicles))


def draw_bicycle(pen: Pen, domain: Domain, rng: np.random.Generator) -> None:
    colour, tube = pick(rng, domain.vehicles), 0.075
    rear, front, pedals, seat, head = (
        (-0.54, 0.36),
        (0.54, 0.36),
        (-0.06, 0.32),
        (-0.24, 0.86),
        (0.4, 0.88),
    )
    pen.cover([rear, seat, head, front, pedals])
    for wheel in (rear, front):
        pen.ring(*wheel, 0.36, 0.08, TYRE)
        pen.disc(*wheel, 0.06, HUB)
    for start, end in (
        (rear, pedals),
        (rear, seat),
        (pedals, seat),
        (pedals, head),
        (seat, head),
        (head, front),
    ):
        pen.line(start, end, tube, colour)
    pen.line((-0.38, 0.94), (-0.12, 0.94), 0.1, DARK)
    pen.line(head, (0.36, 1.04), tube, DARK)
    pen.line((0.36, 1.04), (0.5, 1.06), tube, DARK)


def draw_motorcycle(pen: Pen, domain: Domain, rng: np.random.Generator) -> None:
    colour = pick(rng, domain.vehicles)
    for x in (-0.72, 0.74):
        draw_wheel(pen, x, 0.33)
    pen.polygon(
        [
            (-0.95, 0.72),
            (-0.3, 0.84),
            (0.1, 0.98),
            (0.5, 0.9),
            (0.62, 0.5),
            (0.3, 0.26),
            (-0.4, 0.26),
        ],
        colour,
    )
    pen.polygon([(-0.3, 0.24), (0.26, 0.24), (0.3, 0.56), (-0.2, 0.56)], DARK)
    pen.polygon([(-0.9, 0.8), (-0.2, 0.92), (0.0, 0.84), (-0.7, 0.7)], DARK)
    pen.line((0.5, 1.14), (0.74, 0.34), 0.11, DARK)
    pen.line((-0.86, 0.36), (-0.2, 0.32), 0.12, HUB)
    pen.polygon([(0.42, 0.94), (0.62, 0.8), (0.6, 1.22), (0.48, 1.2)], domain.glass)
    if domain.headlights:
        pen.lamp(0.7, 0.84, 0.16, HEAD_LAMP)


def draw_car(pen: Pen, domain: Domain, rng: np.random.Generator) -> None:
    if rng.random() < 0.25:
        draw_car_front(pen, domain, rng)
        return
    colour = pick(rng, domain.vehicles)
    roof_rear, roof_front, tail = pick(
        rng, ((-1.1, 0.55, -1.6), (-1.65, 0.5, -1.95), (-0.8, 0.4, -1.35))
    )
    pen.polygon(
        [(-2.1, 0.28), (2.1, 0.28), (2.12, 0.66), (1.3, 0.86), (-1.95, 0.9), (-2.12, 0.66)], colour
    )
    pen.polygon(
        [(tail, 0.86), (roof_rear, 1.46), (roof_front, 1.46), (1.3, 0.84)], shade(colour, 0.88)
    )
    middle = (roof_rear + roof_front) / 2
    pen.polygon(
        [(tail + 0.22, 0.9), (roof_rear + 0.1, 1.36), (middle - 0.06, 1.36), (middle - 0.06, 0.9)],
        domain.glass,
    )
    pen.polygon(
        [(middle + 0.06, 0.9), (middle + 0.06, 1.36), (roof_front - 0.04, 1.36), (1.02, 0.9)],
        domain.glass,
    )
    for x in (-1.28, 1.28):
        draw_wheel(pen, x, 0.34)
    draw_lights(pen, domain, 2.1, -2.1, 0.64)


def draw_car_front(pen: Pen, domain: Domain, rng: np.random.Generator) -> None:
    colour, lamp = pick(rng, domain.vehicles), pick(rng, (HEAD_LAMP, TAIL_LAMP))
    for x in (-0.7, 0.7):
        pen.box(x - 0.16, 0, x + 0.16, 0.5, TYRE)
    pen.polygon(
        [(-0.9, 0.24), (0.9, 0.24), (0.94, 0.8), (0.82, 0.94), (-0.82, 0.94), (-0.94, 0.8)], colour
    )
    pen.polygon([(-0.82, 0.92), (0.82, 0.92), (0.6, 1.48), (-0.6, 1.48)], shade(colour, 0.88))
    pen.polygon([(-0.68, 0.96), (0.68, 0.96), (0.52, 1.38), (-0.52, 1.38)], domain.glass)
    pen.box(-0.3, 0.34, 0.3, 0.5, DARK)
    for x in (-0.68, 0.68):
        pen.disc(x, 0.68, 0.15, lamp)
        if domain.headlights:
            pen.lamp(x, 0.68, 0.2, lamp)


def draw_truck(pen: Pen, domain: Domain, rng: np.random.Generator) -> None:
    cab, load = pick(rng, domain.vehicles), shade(pick(rng, domain.vehicles), 0.9)
    pen.box(-3.2, 0.5, 3.0, 0.8, DARK)
    pen.box(-3.3, 0.8, 1.35, 3.15, load)
    for x in (-2.2, -1.0, 0.2):
        pen.line((x, 0.9), (x, 3.05), 0.07, shade(load, 0.75))
    pen.polygon([(1.55, 0.5), (3.3, 0.5), (3.3, 1.35), (2.9, 2.4), (1.55, 2.4)], cab)
    pen.polygon([(2.1, 1.4), (3.15, 1.4), (2.8, 2.2), (2.1, 2.2)], domain.glass)
    for x in (-2.5, -1.5, 2.4):
        draw_wheel(pen, x, 0.5)
    draw_lights(pen, domain, 3.3, -3.3, 0.95)


def draw_bus(pen: Pen, domain: Domain, rng: np.random.Generator) -> None:
    colour = pick(rng, domain.vehicles)
    pen.polygon([(-4.1, 0.35), (4.1, 0.35), (4.15, 1.3), (4.0, 2.95), (-4.1, 2.95)], colour)
    pen.box(-4.1, 0.7, 4.1, 0.95, shade(colour, 0.6))
    for x in np.arange(-3.85, 2.4, 0.98):
        pen.box(x, 1.45, x + 0.8, 2.5, domain.glass)
    pen.box(2.55, 0.5, 3.25, 2.5, domain.glass)
    pen.polygon([(3.45, 1.4), (4.08, 1.4), (3.98, 2.6), (3.45, 2.6)], domain.glass)
    for x in (-2.6, 2.0):
        draw_wheel(pen, x, 0.48)
    draw_lights(pen, domain, 4.1, -4.1, 0.8)


def draw_train(pen: Pen, domain: Domain, rng: np.random.Generator) -> None:
    colour, stripe = pick(rng, domain.vehicles), pick(rng, domain.vehicles)
    rails = replace(pen, label=RAIL)
    for y in (0.02, -0.25):
        rails.line((-40, y), (40, y), 0.1, HUB)
    pen.box(-6.8, 0.1, 6.4, 0.5, DARK)
    pen.polygon([(-7, 0.4), (6.8, 0.4), (7.1, 1.2), (6.2, 3.3), (5.6, 3.5), (-7, 3.5)], colour)
    pen.box(-7, 1.05, 6.9, 1.4, stripe)
    pen.box(-7, 3.2, 6.0, 3.5, shade(colour, 0.7))
    for x in np.arange(-6.6, 5.0, 1.3):
        pen.box(x, 1.75, x + 1.0, 2.75, domain.glass)
    for x in (-4.0, 1.2):
        pen.box(x - 0.14, 0.5, x + 0.14, 3.1, shade(colour, 0.6))
    pen.polygon([(5.7, 1.7), (6.78, 1.7), (6.2, 2.9), (5.7, 2.9)], domain.glass)
    for end in (-0.6, 0.7):
        pen.line((0.0, 3.5), (end, 4.1), 0.1, DARK)
        pen.line((end, 4.1), (0.0, 4.6), 0.1, DARK)
    pen.line((-0.7, 4.6), (0.7, 4.6), 0.12, DARK)
    draw_lights(pen, domain, 6.9, -7, 0.85)


PAINTERS = {
    PERSON: draw_person,
    RIDER: draw_rider,
    CAR: draw_car,
    TRUCK: draw_truck,
    BUS: draw_bus,
    TRAIN: draw_train,
    MOTORCYCLE: draw_motorcycle,
    BICYCLE: draw_bicycle,
}
# metres: half the length, and the range of distances below the horizon as a fraction of the image
# height
HALF_LENGTH = {
    PERSON: 0.4,
    CAR: 2.1,
    BICYCLE: 0.9,
    MOTORCYCLE: 1.05,
    TRUCK: 3.3,
    BUS: 4.1,
    TRAIN: 7.0,
}
DEPTHS = {
    PERSON: (0.2, 0.56),
    CAR: (0.16, 0.46),
    BICYCLE: (0.24, 0.56),
    MOTORCYCLE: (0.22, 0.54),
    TRUCK: (0.18, 0.34),
    BUS: (0.18, 0.32),
    TRAIN: (0.16, 0.24),
}
RIDER_CHANCE = {BICYCLE: 0.55, MOTORCYCLE: 0.6}


@dataclass(frozen=True)
class Placement:
    """Where one object stands: `x` and `ground` in pixels, `scale` in pixels a metre."""

    category: int
    x: float
    ground: float
    scale: float
    flip: int

    def span(self) -> tuple[float, float]:
        half = HALF_LENGTH[self.category] * self.scale
        return self.x - half, self.x + half


def overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Length of the intersection of two intervals relative to the shorter one."""
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0])) / min(a[1] - a[0], b[1] - b[0])


def place_object(
    rng: np.random.Generator, placed: list[Placement], horizon: float, size: tuple[int, int]
) -> Placement:
    """The best of four random places for an object of a random class: where it hides least of the
    others.
    """
    height, width = size
    category = int(rng.choice(list(CLASS_WEIGHTS), p=list(CLASS_WEIGHTS.values())))
    below = rng.uniform(*DEPTHS[category]) * height
    candidates = [
        Placement(
            category,
            rng.uniform(0.06, 0.94) * width,
            horizon + below,
            below / CAMERA_HEIGHT,
            int(rng.choice([-1, 1])),
        )
        for _ in range(4)
    ]
    return min(candidates, key=lambda c: sum(overlap(c.span(), other.span()) for other in placed))


def draw_background(
    canvas: Canvas, domain: Domain, rng: np.random.Generator, horizon: float
) -> None:
    """Sky, ground, road in perspective, buildings, trees and a pole, with their class ids."""
    height, width = canvas.height, canvas.width
    rows = (np.arange(canvas.image.shape[0]) / (SUPERSAMPLING * horizon)).clip(0, 1)[:, None]
    top, bottom = (np.array(colour, np.float64) for colour in domain.sky)
    canvas.image[:] = np.rint(top + (bottom - top) * rows).astype(np.uint8)[:, None]
    canvas.ids[:] = SKY
    x = -rng.uniform(0, 0.1) * width
    while x < width:
        breadth = rng.uniform(0.12, 0.28) * width
        roof = rng.uniform(0.0, 0.22) * height
        draw_building(canvas, domain, rng, (x, x + breadth), (roof, horizon + 0.06 * height))
        x += breadth * rng.choice([1.0, 1.0, 1.25])
    kerb = horizon + 0.06 * height
    canvas.polygon(
        [(0, kerb), (width, kerb), (width, height), (0, height)], domain.sidewalk, SIDEWALK
    )
    middle, far, near = rng.uniform(0.35, 0.65) * width, 0.24 * width, 0.85 * width
    corners = [
        (middle - far, kerb),
        (middle + far, kerb),
        (middle + near, height),
        (middle - near, height),
    ]
    canvas.polygon(corners, domain.road, ROAD)
    for start, end in (
        (0.1, 0.2),
        (0.32, 0.5),
        (0.68, 1.0),
    ):  # lane markings, in fractions of the way to us
        y0, y1 = (kerb + f * (height - kerb) for f in (start, end))
        canvas.polygon(
            [
                (middle - 2 * start, y0),
                (middle + 2 * start, y0),
                (middle + 3 * end, y1),
                (middle - 3 * end, y1),
            ],
            mix(domain.road, (255, 255, 255), 0.55),
            None,
        )
    for _ in range(rng.integers(1, 4)):
        draw_tree(canvas, domain, rng, kerb)
    draw_pole(canvas, domain, rng, kerb)


def draw_building(
    canvas: Canvas, domain: Domain, rng: np.random.Generator, xs: Point, ys: Point
) -> None:
    """One front of a building between xs and ys (pixels), with a grid of windows."""
    colour = shade(pick(rng, domain.buildings), rng.uniform(0.88, 1.1))
    (left, right), (top, bottom) = xs, ys
    canvas.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour, BUILDING)
    step_x, step_y = rng.uniform(0.04, 0.06) * canvas.width, rng.uniform(0.1, 0.14) * canvas.height
    for x in np.arange(left + 0.3 * step_x, right - 0.6 * step_x, step_x):
        for y in np.arange(top + 0.3 * step_y, bottom - 0.8 * step_y, step_y):
            glass = mix(domain.windows, colour, rng.uniform(0.0, 0.75))
            canvas.polygon(
                [
                    (x, y),
                    (x + 0.5 * step_x, y),
                    (x + 0.5 * step_x, y + 0.55 * step_y),
                    (x, y + 0.55 * step_y),
                ],
                glass,
                None,
            )


def draw_tree(canvas: Canvas, domain: Domain, rng: np.random.Generator, ground: float) -> None:
    x, size = rng.uniform(0, canvas.width), rng.uniform(0.1, 0.17) * canvas.height
    colour = pick(rng, domain.vegetation)
    canvas.line((x, ground + 2), (x, ground - 2 * size), 0.2 * size, shade(DARK, 1.5), VEGETATION)
    for dx, dy in ((-0.6, 1.5), (0.6, 1.5), (0.0, 2.1)):
        canvas.circle(
            (x + dx * size, ground - dy * size),
            size * rng.uniform(0.75, 1.0),
            shade(colour, 0.8 + 0.1 * dy),
            VEGETATION,
        )


def draw_pole(canvas: Canvas, domain: Domain, rng: np.random.Generator, ground: float) -> None:
    x, height = rng.uniform(0.05, 0.95) * canvas.width, canvas.height
    top = ground - rng.uniform(0.3, 0.4) * height
    canvas.line((x, ground + 0.05 * height), (x, top), 0.014 * height, HUB, POLE)
    canvas.circle((x, top), 0.04 * height, pick(rng, domain.vehicles), SIGN)


def add_weather(
    image: np.ndarray, ids: np.ndarray, domain: Domain, rng: np.random.Generator
) -> np.ndarray:
    """Surface texture, rain, colour cast, blur and sensor noise on the finished image (H, W, 3)
    uint8.
    """
    height, width = ids.shape
    if domain.rain:
        drops = rng.uniform(size=(int(rng.integers(domain.rain)), 3)) * (
            width,
            height,
            0.08 * height,
        )
        for x, y, length in drops:
            cv2.line(
                image, (int(x), int(y)), (int(x - length / 3), int(y + length)), domain.haze, 1
            )
        image = cv2.GaussianBlur(image, (3, 3), 0)
    gain = np.array(domain.light) * rng.uniform(0.88, 1.08)
    scaled = image * gain
    if domain.texture:
        cells = rng.uniform(-domain.texture, domain.texture, (-(-height // 3), -(-width // 3)))
        scaled *= 1 + np.repeat(np.repeat(cells, 3, 0), 3, 1)[:height, :width, None]
    if domain.noise:
        scaled += rng.uniform(-1, 1, image.shape) * (255 * domain.noise)
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def drop_hidden(ids: np.ndarray) -> None:
    """Make what is left of almost hidden instances void, in place."""
    values, counts = np.unique(ids, return_counts=True)
    for value in values[(counts < MIN_VISIBLE) & (values >= PERSON)]:
        ids[ids == value] = DYNAMIC


def draw_scene(
    domain_name: str, rng: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A street scene of a domain ('source', 'target' or 'varied').

    Returns the RGB image (H, W, 3) uint8 and the ids (H, W) uint16 as in Cityscapes'
    instanceIds.png: label id * 1000 + k for the k-th instance of a class, the bare label id for
    everything else.
    """
    domain, (height, width) = scene_domain(domain_name, rng), size
    canvas, horizon = Canvas(height, width), rng.uniform(0.34, 0.42) * height
    draw_background(canvas, domain, rng, horizon)
    haze = rng.uniform(*domain.haze_strength)
    far = (
        1 - (np.arange(canvas.image.shape[0]) / SUPERSAMPLING - horizon) / (height - horizon)
    ).clip(0, 1)
    weight = (haze * far)[:, None, None]
    canvas.image[:] = np.rint(canvas.image * (1 - weight) + np.array(domain.haze) * weight).astype(
        np.uint8
    )

    def pen(at: Placement, label: int) -> Pen:
        distance = 1 - (at.ground - horizon) / (height - horizon)
        return Pen(
            canvas,
            at.x,
            at.ground,
            at.scale,
            at.flip,
            domain.stretch,
            domain.haze,
            haze * distance,
            label,
        )

    if rng.random() < GROUP_CHANCE:
        draw_group(rng, pen, domain, horizon, size)
    placed: list[Placement] = []
    for _ in range(rng.integers(domain.num_objects[0], domain.num_objects[1] + 1)):
        placed.append(place_object(rng, placed, horizon, size))
    counts = dict.fromkeys(PAINTERS, 0)
    for at in sorted(placed, key=lambda p: p.ground):  # the far ones first: the near ones hide them
        categories = [at.category]
        if rng.random() < RIDER_CHANCE.get(at.category, 0):
            categories.append(RIDER)
        for category in categories:
            label = domain.rider if category == RIDER else category
            PAINTERS[category](pen(at, label * 1000 + counts[label]), domain, rng)
            counts[label] += 1
    drop_hidden(canvas.ids[::SUPERSAMPLING, ::SUPERSAMPLING])
    image, ids = canvas.rendered()
    return add_weather(image, ids, domain, rng), ids


def draw_group(
    rng: np.random.Generator,
    pen: Callable[..., Pen],
    domain: Domain,
    horizon: float,
    size: tuple[int, int],
) -> None:
    """A distant row of people, cars or bicycles that nobody could tell apart: one bare label id."""
    height, width = size
    category = pick(rng, (PERSON, CAR, BICYCLE))
    below = rng.uniform(0.11, 0.15) * height
    scale, x = below / CAMERA_HEIGHT, rng.uniform(0.1, 0.8) * width
    for _ in range(rng.integers(4, 8)):
        PAINTERS[category](
            pen(Placement(category, x, horizon + below, scale, 1), category), domain, rng
        )
        x += HALF_LENGTH[category] * scale * rng.uniform(0.8, 1.4)
