"""Toy Nuclei: microscopy images that nobody took, of any stain, light and crowding, as a COCO data
set.
"""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from mmcast.coco.converters.instance_maps import annotation, convert_maps
from mmcast.files import write_atomically

CATEGORIES = (dict(id=1, name='nucleus', supercategory='nucleus'),)
SPLITS = ('train', 'val')
SIZE = 256  # pixels, height and width
MAX_NUCLEI = 120  # of an image
MIN_VISIBLE = 20  # pixels; what is left of a more hidden nucleus is background
SUPERSAMPLING = 2
ATTEMPTS = 8  # places that are tried for a nucleus before it is left out
CORNERS = 40  # of a nucleus' outline


@dataclass(frozen=True)
class Look:
    """How one image looks. Colours are RGB in [0, 255], lengths are pixels."""

    background: np.ndarray  # (3,)
    nucleus: np.ndarray  # (3,)
    radius: float
    spread: float  # standard deviation of a radius' logarithm
    elongation: float  # largest ratio of the axes
    roughness: float  # of the outline, relative to the radius
    number: int
    clusters: int  # 0: nuclei lie anywhere
    distance: float  # least one of two centres, relative to the sum of their radii
    variation: float  # of the stain between nuclei, relative to its contrast
    texture: float  # of the stain within a nucleus, likewise
    rim: float  # more or less stain at the outline, likewise
    cytoplasm: float  # stain around nuclei, likewise
    structure: float  # of the background, in [0, 1] of full scale
    blur: float
    noise: float  # in [0, 1] of full scale


def random_look(rng: np.random.Generator) -> Look:
    """The look of one image: nuclei shine on dark ground or are dark on bright ground, in any
    colours.
    """
    grey, bright = rng.random() < 0.6, rng.random() < 0.4

    def colour(low: float, high: float) -> np.ndarray:
        level = rng.uniform(low, high)
        return np.clip(level + (0 if grey else rng.uniform(-60, 60, 3)) + np.zeros(3), 0, 255)

    background = colour(140, 245) if bright else colour(0, 45)
    contrast = np.exp(rng.uniform(np.log(18), np.log(190)))
    nucleus = background - np.minimum(contrast, 150) if bright else background + contrast
    nucleus = np.clip(nucleus + (0 if grey else rng.uniform(-40, 40, 3)), 0, 255)
    radius = np.exp(rng.uniform(np.log(3.5), np.log(18)))
    covered = rng.uniform(0.02, 0.5)
    return Look(
        background=background,
        nucleus=nucleus,
        radius=radius,
        spread=rng.uniform(0.05, 0.4),
        elongation=rng.uniform(1.1, 2.6),
        roughness=rng.uniform(0, 0.12),
        number=int(np.clip(covered * SIZE**2 / (np.pi * radius**2), 1, MAX_NUCLEI)),
        clusters=int(rng.integers(1, 8)) if rng.random() < 0.5 else 0,
        distance=rng.uniform(0.55, 1.05),
        variation=rng.uniform(0, 0.45),
        texture=rng.uniform(0, 0.4),
        rim=rng.uniform(-0.4, 0.4),
        cytoplasm=rng.uniform(0, 0.35) if rng.random() < 0.5 else 0.0,
        structure=rng.uniform(0, 0.08) if bright else rng.uniform(0, 0.03),
        blur=rng.uniform(0, 1.6),
        noise=rng.uniform(0, 0.03),
    )


def draw_nuclei(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One image.

    Returns:
        The image (SIZE, SIZE, 3), RGB in uint8, and the ids (SIZE, SIZE) in int32: 0 is background,
        nuclei count from 1. A nucleus covers those with lower ids; some ids may be hidden
        altogether.
    """
    look = random_look(rng)
    ids = np.zeros((SIZE * SUPERSAMPLING, SIZE * SUPERSAMPLING), np.int32)
    for index, (centre, radius) in enumerate(placed_nuclei(look, rng), start=1):
        cv2.fillPoly(ids, [outline(look, centre, radius, rng)], index)
    return painted(look, ids, rng), np.ascontiguousarray(ids[::SUPERSAMPLING, ::SUPERSAMPLING])


def placed_nuclei(look: Look, rng: np.random.Generator) -> list[tuple[np.ndarray, float]]:
    """Centres (x, y) and radii in pixels, none closer to another one than the look allows."""
    middles = rng.uniform(0, SIZE, (max(look.clusters, 1), 2))
    placed: list[tuple[np.ndarray, float]] = []
    for _ in range(look.number):
        radius = look.radius * np.exp(look.spread * rng.standard_normal())
        for _ in range(ATTEMPTS):
            centre = rng.uniform(-radius / 2, SIZE + radius / 2, 2)
            if look.clusters and rng.random() < 0.85:
                centre = (
                    middles[rng.integers(look.clusters)] + rng.standard_normal(2) * look.radius * 4
                )
            if all(
                np.hypot(*(centre - other)) >= look.distance * (radius + r) for other, r in placed
            ):
                placed.append((centre, radius))
                break
    return placed


def outline(look: Look, centre: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """The corners (CORNERS, 2) of a rough ellipse, int32, in the finer pixels that are drawn on."""
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    waves = sum(
        rng.normal(0, look.roughness / k) * np.cos(k * angles + rng.uniform(0, 2 * np.pi))
        for k in (2, 3, 4, 5)
    )
    stretch = np.sqrt(rng.uniform(1, look.elongation))
    x, y = radius * (1 + waves) * np.stack([np.cos(angles) * stretch, np.sin(angles) / stretch])
    turn = rng.uniform(0, np.pi)
    points = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)
    return np.rint((centre + points) * SUPERSAMPLING).astype(np.int32)


def painted(look: Look, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image (SIZE, SIZE, 3), uint8, of what ``ids`` shows at SUPERSAMPLING times the size."""
    inside = (ids > 0).astype(np.uint8)
    borders = (
        cv2.morphologyEx(ids.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
    ) & (ids > 0)
    depth = cv2.distanceTransform(inside & ~borders, cv2.DIST_L2, 3) / (look.radius * SUPERSAMPLING)
    levels = np.clip(1 + look.variation * rng.standard_normal(ids.max() + 1), 0.25, 2)
    stain = levels[ids] * (
        1 + look.texture * clouds(ids.shape, look.radius * 0.7, rng) + look.rim * np.exp(-4 * depth)
    )
    around = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 0.6 * look.radius * SUPERSAMPLING)
    stain = np.where(ids > 0, np.clip(stain, 0.15, 2.5), look.cytoplasm * around)
    if look.blur:
        stain = cv2.GaussianBlur(stain, (0, 0), look.blur * SUPERSAMPLING / 2 + 0.3)
    light = 255 * look.structure * (clouds(ids.shape, 40, rng) + clouds(ids.shape, 5, rng) / 2)
    image = look.background + light[..., None] + stain[..., None] * (look.nucleus - look.background)
    image = cv2.resize(image.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    image += 255 * look.noise * rng.standard_normal((SIZE, SIZE, 1))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def clouds(shape: tuple[int, int], grain: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of unit strength whose structures are about ``grain`` final pixels wide."""
    coarse = [max(2, round(length / (grain * SUPERSAMPLING))) for length in shape]
    noise = rng.standard_normal(coarse).astype(np.float32)
    return cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC)


def generate_toy_nuclei(
    root: str | os.PathLike,
    num_train: int = 3000,
    num_val: int = 60,
    seed: int = 0,
    num_workers: int = 0,
    progress: bool = True,
) -> None:
    """Write a COCO data set: `images/{train,val}/*.png` and
    `annotations/instances_{train,val}.json`.

    Image i of a split depends on (seed, split, i) alone. What is there with the same content is
    left alone.

    Args:
        root: Folder to fill.
        num_train: Images of the training split.
        num_val: Images of the validation split.
        seed: Of all random numbers.
        num_workers: Processes that draw; 0 draws here.
        progress: Show a progress bar.

    Raises:
        CASTError: If an annotation file is there with other content.
    """
    for split, number in zip(SPLITS, (num_train, num_val)):
        stems = [f'{split}/nuclei_{index:06d}' for index in range(number)]
        convert_maps(
            partial(write_image, Path(root, 'images'), seed),
            stems,
            CATEGORIES,
            Path(root, f'annotations/instances_{split}.json'),
            f'Toy Nuclei {split}',
            num_workers,
            progress=progress,
        )


def write_image(folder: Path, seed: int, stem: str) -> tuple[dict, list[dict]]:
    """Draw one image and write it; its COCO entries, without ids."""
    split, _, index = stem.partition('/nuclei_')
    image, ids = draw_nuclei(np.random.default_rng([seed, SPLITS.index(split), int(index)]))
    path = folder / f'{stem}.png'
    if not path.exists():
        write_atomically(path, cv2.imencode('.png', image[..., ::-1])[1].tobytes())
    nuclei, sizes = np.unique(ids[ids > 0], return_counts=True)
    return (
        dict(file_name=f'{stem}.png', height=SIZE, width=SIZE),
        [
            annotation(ids == nucleus, 1, int(nucleus))
            for nucleus, size in zip(nuclei, sizes)
            if size >= MIN_VISIBLE
        ],
    )
