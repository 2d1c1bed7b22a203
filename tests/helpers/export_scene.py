"""What the exports in ``tests/exports`` show: three small images with their objects' masks."""

import numpy as np

HEIGHT, WIDTH = 32, 48
NAMES = ('cell', 'nucleus')


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """A mask of the rows and columns from ``top`` and ``left``, without the last ones."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def disc(row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


SQUARE = box(3, 4, 13, 14)
RING = box(3, 20, 15, 32) & ~box(7, 24, 11, 28)
PARTS = (box(18, 2, 24, 10), box(25, 14, 31, 22))
CORNER = box(0, 0, 8, 10)
DISC = disc(16, 34, 7)

# The objects of each image: name and mask. The last image has none.
SCENE = {
    'a.png': [('cell', SQUARE), ('cell', RING), ('nucleus', PARTS[0] | PARTS[1])],
    'b.png': [('nucleus', CORNER), ('cell', DISC)],
    'c.png': [],
}


def picture(name: str) -> np.ndarray:
    """The pixels of an image, (H, W, 3) uint8: objects in the colours of their names."""
    shades = np.linspace(20, 90, WIDTH).astype(np.uint8)
    pixels = np.repeat(np.broadcast_to(shades, (HEIGHT, WIDTH))[..., None], 3, axis=2).copy()
    pixels[..., 2] += list(SCENE).index(name)  # no two images are one another's copy
    for label, mask in SCENE[name]:
        pixels[mask] = (200, 80, 60) if label == 'cell' else (70, 160, 210)
    return pixels
