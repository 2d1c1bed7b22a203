"""A mask as one polygon, which is all that a line of a YOLO label file holds of an object.

Holes and parts are joined to one ring by lines there and back. Readers draw such a polygon each in
their own way: along pixel edges or through centres of pixels, with these lines or without, at the
size of the image or enlarged. docs/labels.md has the rules under which all that we measured give
the mask back:

- Outlines run along the edges of pixels, moved into the object by :data:`INSET`.
- A hole is joined along a row of pixels of the object, which costs no pixel.
- Pixels that touch at a corner are one part, joined at that corner.
- Every further part is a ring of its own, closed exactly on its first point: there lightly-train
  cuts the line. The other readers draw the line from part to part, one pixel wide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

#: By how much outlines are moved into the object, in pixels: enough for coordinates of 32 bits,
#: and less than half a pixel in an image enlarged twenty times.
INSET = 0.02
#: Between points that must differ but are drawn as one, in pixels.
BESIDE = 0.0005
#: Where a point is put on the line through a corner of four pixels: readers put further ones on
#: halves and thirds of a line, and none of them is to be on that corner.
_NOT_HALF = 0.3183
_MOST_DISTANCES = 20_000_000  # a second's work
_DROPPED = 2  # so many points at the end of a line lightly-train does not draw


@dataclass(eq=False)
class _Ring:
    """The outline of a part, or of a hole in it.

    Args:
        points: (N, 2) columns and rows of quarters of pixels, each next to the one before: the
            outermost ones of the object.
        holes: polygons of the holes that are joined to this ring, and at which of its points.
    """

    points: np.ndarray
    holes: list[tuple[int, np.ndarray]] = field(default_factory=list)

    @property
    def leftmost(self) -> int:
        """The index of its first point in the leftmost column."""
        return int(np.lexsort(self.points.T[::-1])[0])

    def walk(self, start: int) -> np.ndarray:
        """(M, 2) the corners from the point ``start`` on, in pixels, with the holes on the way."""
        points = np.roll(self.points, -start, axis=0)
        steps = np.roll(points, -1, axis=0) - points
        kept = (steps != np.roll(steps, 1, axis=0)).any(1)
        exact = _to_pixels(points)
        across = (np.roll(exact, -1, axis=0) - exact) * _NOT_HALF
        diagonal = np.flatnonzero(steps.all(1))
        inserted: list[tuple[int, np.ndarray]] = []
        for index, hole in self.holes:
            here = (index - start) % len(points)
            beside = exact[[here]] + BESIDE * steps[here]
            inserted.append((here, np.concatenate([hole, beside])))
        inserted += [(index, exact[[index]] + across[index]) for index in diagonal.tolist()]
        kept[[0, *(index for index, _ in inserted)]] = True
        pieces, begin = [], 0
        for index, more in sorted(inserted, key=lambda item: item[0]):
            pieces += [exact[begin : index + 1][kept[begin : index + 1]], more]
            begin = index + 1
        return np.concatenate([*pieces, exact[begin:][kept[begin:]]])

    def beside(self, index: int, times: int) -> np.ndarray:
        """(2,) in pixels, a point a little before (below 0) or behind one of the ring."""
        next_index = (index + (1 if times > 0 else -1)) % len(self.points)
        step = self.points[next_index] - self.points[index]
        return _to_pixels(self.points[index]) + abs(times) * BESIDE * step


@dataclass(eq=False)
class _Part:
    """What hangs together, by an edge or a corner of pixels: its outline, and its holes joined."""

    outer: _Ring
    anchors: np.ndarray  # (K,) indices of the outline's points that none of its rings has again


def mask_polygon(mask: np.ndarray) -> np.ndarray:
    """The polygon of a mask.

    Filled by the even-odd rule, with a pixel inside where its centre is, it is the mask exactly.

    Args:
        mask: (H, W) of bool, not empty.

    Returns:
        (N, 2) x and y in pixels, N at least 4; the last point is not the first one again.

    Raises:
        ValueError: the mask is empty.
    """
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    rows, columns = (np.flatnonzero(pixels.any(axis)) for axis in (1, 0))
    if not len(rows):
        raise ValueError('an empty mask has no outline')
    parts = _find_parts(pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    if len(parts) == 1:
        polygon = parts[0].outer.walk(int(parts[0].anchors[0]))
    else:
        polygon = np.concatenate(list(_walk_parts(parts)))
    return polygon + (columns[0], rows[0])


def _to_pixels(points: np.ndarray) -> np.ndarray:
    """Positions in pixels of quarters of pixels: near the outer edges, not in the middle."""
    return points // 2 + np.where(points % 2, 1 - INSET, INSET)


def _find_parts(crop: np.ndarray) -> list[_Part]:
    """The parts of a mask (H, W), the one with the longest outline first."""
    # In quarters, the two sides of what is one pixel wide are different points.
    quarters = crop.repeat(2, axis=0).repeat(2, axis=1)
    outlines, tree = cv2.findContours(quarters, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings: dict[int, list[_Ring]] = {}
    for number, (points, parent) in enumerate(zip(outlines, tree[0, :, 3].tolist())):
        ring = _Ring(_with_corners(points[:, 0], quarters))
        rings.setdefault(parent if parent >= 0 else number, []).append(ring)
    parts = [_join_holes(group, quarters) for group in rings.values()]
    return sorted(parts, key=lambda part: -len(part.outer.points))


def _with_corners(points: np.ndarray, quarters: np.ndarray) -> np.ndarray:
    """An outline that OpenCV cuts short at inner corners, with these.

    A reader that puts further points on the line would else put one on the corner of four pixels,
    and so into the pixel outside.
    """
    following = np.roll(points, -1, axis=0)
    diagonal = np.flatnonzero((following != points).all(1))
    first = np.stack([following[diagonal, 0], points[diagonal, 1]], axis=1)
    second = np.stack([points[diagonal, 0], following[diagonal, 1]], axis=1)
    inside = [quarters[corners[:, 1], corners[:, 0]] > 0 for corners in (first, second)]
    corners = np.where(inside[0][:, None], first, second)
    chosen = inside[0] | inside[1]  # the others are pixels that touch at a corner
    return np.insert(points, diagonal[chosen] + 1, corners[chosen], axis=0)


def _join_holes(rings: Sequence[_Ring], quarters: np.ndarray) -> _Part:
    """Joins each hole of a part to the ring to its left, in the row of its leftmost point.

    All between is of the object. That ring reaches further to the left, so that there is no circle,
    and the outline is the last one.
    """
    order = sorted(rings, key=lambda ring: ring.points[ring.leftmost, 0].item())
    # Of several rings through one point, the one that reaches furthest to the left comes first.
    number = np.repeat(np.arange(len(order)), [len(ring.points) for ring in order])
    index = np.concatenate([np.arange(len(ring.points)) for ring in order])
    keys = np.concatenate([ring.points for ring in order]) @ (1, quarters.shape[1])
    by_key = np.argsort(keys, kind='stable')
    for hole in reversed(order[1:]):
        start = hole.leftmost
        x, y = hole.points[start].tolist()
        outside = np.flatnonzero(quarters[y, :x] == 0)
        left = outside[-1] + 1 if len(outside) else 0
        found = by_key[np.searchsorted(keys, left + y * quarters.shape[1], sorter=by_key)]
        polygon = np.concatenate([hole.walk(start), hole.beside(start, -1)[None]])
        order[number[found]].holes.append((int(index[found]), polygon))
    _, first, times = np.unique(keys, return_index=True, return_counts=True)
    single = np.sort(first[times == 1])
    return _Part(order[0], single[single < len(order[0].points)])


@dataclass(eq=False)
class _Node:
    """A part in the tree of parts.

    Args:
        part: itself.
        index: the point of its outline at which it is joined to others.
        children: parts that are joined to it.
    """

    part: _Part
    index: int
    children: list['_Node'] = field(default_factory=list)

    def ring(self) -> np.ndarray:
        """The part, closed exactly on its first point."""
        polygon = self.part.outer.walk(self.index)
        return np.concatenate([polygon, polygon[:1]])

    def point(self) -> np.ndarray:
        return _to_pixels(self.part.outer.points[[self.index]])

    def loop(self) -> np.ndarray:
        """On the way back: as no more than a point, closed so that lightly-train cuts here too."""
        beside = [self.part.outer.beside(self.index, times) for times in (1, 2)]
        return np.concatenate([self.point(), beside, self.point()])


def _walk_parts(parts: Sequence[_Part]) -> Iterator[np.ndarray]:
    """From part to part and back, in pieces of one polygon."""
    path = [_tree_of(parts)]
    yield path[0].ring()
    back: list[_Node] = []
    while path:
        if not path[-1].children:
            path.pop()
            back += path[-1:]
            continue
        yield from (node.loop() for node in back)
        back = []
        path.append(path[-1].children.pop(0))
        yield path[-1].ring()
    del back[-1:]  # where the polygon begins
    yield from (node.point() if len(back) <= _DROPPED else node.loop() for node in back)


def _tree_of(parts: Sequence[_Part]) -> _Node:
    """Joins each part to the nearest that is joined already, at its one point; the first two at
    those that are nearest to each other.
    """
    from scipy.spatial import KDTree  # here, as few objects have parts

    # Of thousands of parts, which is noise, some points will do.
    stride = 1 + len(parts) * sum(len(part.anchors) for part in parts) // _MOST_DISTANCES
    anchors = [part.anchors[::stride] for part in parts]
    outlines = [part.outer.points[indices] for part, indices in zip(parts, anchors)]
    part_of = np.repeat(np.arange(len(parts)), [len(points) for points in outlines])
    index_of = np.concatenate(anchors)
    points = np.concatenate(outlines).astype(float)
    first = len(outlines[0])
    distances, nearest = KDTree(points[:first]).query(points[first:])
    start = int(nearest[distances.argmin()])
    nodes = [_Node(parts[0], int(index_of[start]))]
    owner = np.zeros(len(points), int)
    distances = np.linalg.norm(points - points[start], axis=1)
    distances[:first] = np.inf
    while len(nodes) < len(parts):
        chosen = int(distances.argmin())
        node = _Node(parts[part_of[chosen]], int(index_of[chosen]))
        nodes[owner[chosen]].children.append(node)
        distances[part_of == part_of[chosen]] = np.inf
        new = np.linalg.norm(points - points[chosen], axis=1)
        nearer = new < distances
        nearer &= np.isfinite(distances)
        distances[nearer], owner[nearer] = new[nearer], len(nodes)
        nodes.append(node)
    return nodes[0]
