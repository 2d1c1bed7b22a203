"""Maps in which every object has a number of its own, one for each image, to COCO JSON."""

import os
from collections import Counter
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from mmcast.coco.converters.exports import (
    OUT_FILE,
    ImageLabels,
    Written,
    labeled_image,
    read_all,
    write_exports,
)
from mmcast.coco.converters.instance_maps import unreadable
from mmcast.errors import CASTError
from mmcast.images import (
    IMAGE_SUFFIXES,
    explain_sizes,
    image_files,
    list_folder,
    open_image,
    read_header,
)
from mmcast.masks.rle import encode_crop

NO_MAP = 'images without a map left out'
IN_PARTS = 'objects in several parts: right if one number is one object, wrong if it is a class'
NO_BACKGROUND = 'maps in which all pixels are of objects: right if none is background (0, or black)'
# What the name of a map has behind that of its image, where nobody says; the first that fits.
ENDINGS = ('_cp_masks', '_masks', '_mask', '_instances', '_labels', '_label')
_LOSSY = ('JPEG', 'MPO', 'WEBP')  # formats of Pillow that may change numbers a little
_ONE_NUMBER = ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'I;16L', 'F')  # modes of Pillow


def convert_numbered_maps(
    root: str | os.PathLike,
    images: str = 'images',
    maps: str = 'masks',
    name: str = 'object',
    ending: str | None = None,
    ignore: int | None = None,
    single: bool = False,
    out_file: str | os.PathLike | None = None,
    num_workers: int = 0,
    force: bool = False,
    progress: bool = True,
) -> dict[Path, Written]:
    """Convert instance maps, as of Penn-Fudan, Cellpose or StarDist, to one COCO file.

    An object is the pixels of one number, or of one colour where maps are in colours; 0, or black,
    is background. The name of a map is that of its image and an ending, such as ``a_mask.png`` of
    ``a.jpg``, the same in all maps. An image without a map is not labeled.

    Args:
        root: Data root; file names are relative to it.
        images: Its folder of images.
        maps: Its folder of maps; may be the same.
        name: The class of all objects.
        ending: What the name of a map has behind that of its image; None: nothing, or one of
            :data:`ENDINGS`.
        ignore: A number that is no object, such as 255 for borders.
        single: Whether maps with no more than one object each are meant so.
        out_file: Where to write; default ``annotations/instances.json`` in ``root``.
        num_workers: Processes that read the maps; 0 reads them here.
        force: Replace a file with other content.
        progress: Show a progress bar.

    Returns:
        As :func:`write_exports`.

    Raises:
        CASTError: ``name`` is empty; see :func:`match_maps` and :func:`read_numbers`; a map is of
            another size than its image; the maps seem to be of classes; or see
            :func:`write_exports`.
    """
    if not name.strip():
        raise CASTError('--class-name is empty: name the class of the objects')
    root = Path(root)
    pairs, left_out = match_maps(root / images, root / maps, ending)
    read = partial(read_numbered_map, root, name, ignore)
    description = f'instance maps, {root / maps}'
    found = read_all(read, pairs, description, num_workers, progress)
    notes = sum((image.notes for image in found), Counter[str]())
    if notes[IN_PARTS] and not single and all(len(image.objects) < 2 for image in found):
        raise CASTError(
            f'{root / maps}: no map has more than one object, and {notes[IN_PARTS]} of them are in '
            'several parts, as in maps of classes: give maps in which every object has a number, '
            'or say with --single that each image has one'
        )
    found[0].notes[NO_MAP] += left_out
    found[0].notes = +found[0].notes
    return write_exports(
        {Path(out_file) if out_file else root / OUT_FILE: found}, [name], description, force
    )


def match_maps(
    images: Path, maps: Path, ending: str | None = None
) -> tuple[list[tuple[Path, Path]], int]:
    """Images with their maps, sorted, and the number of images that have none.

    Args:
        images: Folder of images, at any depth.
        maps: Folder of maps; may be the same, and one of two may be in the other.
        ending: What the name of a map has behind that of its image; None: found.

    Raises:
        CASTError: a folder is missing or empty, no ending fits all maps, several fit those of one
            folder, or two images have one name.
    """
    for folder in (images, maps):
        if not folder.is_dir():
            raise CASTError(f'{folder} is missing: name the folders with --images and --maps')
    together = images.resolve() == maps.resolve()
    pictures, named = _by_stem(images, maps), _by_stem(maps, images)
    of_ending = {
        known: {stem: path for stem, path in named.items() if stem.endswith(known)}
        for known in ([*ENDINGS, ''] if ending is None else [_without_suffix(ending)])
        if known or not together
    }
    paired = {
        known: [stem for stem in stems if stem.removesuffix(known) in pictures]
        for known, stems in of_ending.items()
    }
    fitting = [
        known
        for known, stems in paired.items()
        if stems and len(stems) == len(of_ending[known] if together else named)
    ]
    if not fitting:
        raise _no_images(images, maps, of_ending, paired)
    if together and len(fitting) > 1:
        raise CASTError(
            f'{maps} has maps that end in {" and in ".join(fitting)}: choose one with --ending'
        )
    known = fitting[0]
    pairs = [(pictures[stem.removesuffix(known)], named[stem]) for stem in sorted(paired[known])]
    return pairs, len(pictures) - len(pairs) - (len(of_ending[known]) if together else 0)


def _no_images(
    images: Path, maps: Path, of_ending: dict[str, dict[str, Path]], paired: dict[str, list[str]]
) -> CASTError:
    """The error that names a map without an image, by the ending that most maps have."""
    best = max(paired, key=lambda known: (len(paired[known]), len(of_ending[known])), default='')
    lonely = sorted(set(of_ending.get(best, ())) - set(paired.get(best, ())))
    such = f', such as for {of_ending[best][lonely[0]].name}' if lonely else ''
    return CASTError(
        f'{images} has no images for all maps of {maps}{such}: the name of a map is that of its '
        f'image and an ending ({", ".join(ENDINGS)}, or that of --ending), the same in all'
    )


def _without_suffix(ending: str) -> str:
    """An ending as it stands before the dot of a name."""
    suffix = Path(f'name{ending}').suffix
    return ending.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else ending


def _by_stem(folder: Path, other: Path) -> dict[str, Path]:
    """The images of a folder by their names below it, without what follows the dot.

    Args:
        folder: Where they are, at any depth.
        other: A folder whose images do not count where it is inside the first.

    Raises:
        CASTError: there are none, or two have one name.
    """
    apart = folder.resolve() in other.resolve().parents
    found: dict[str, Path] = {}
    for path in image_files(folder):
        if apart and other.resolve() in path.resolve().parents:
            continue
        stem = path.relative_to(folder).with_suffix('').as_posix()
        if stem in found:
            raise CASTError(
                f'{found[stem]} and {path} have one name: keep one of them, or move maps to a '
                'folder of their own'
            )
        found[stem] = path
    if not found:
        unread = list_folder(folder)
        only = f', but {unread.unread_formats()}' if unread.unread else ''
        raise CASTError(
            f'{folder} has no files in formats that are read ({" ".join(IMAGE_SUFFIXES)}){only}: '
            'name the folders with --images and --maps, and save arrays (.npy) as PNG of 16 bits'
        )
    return found


def read_numbered_map(
    root: Path, name: str, ignore: int | None, pair: tuple[Path, Path]
) -> ImageLabels:
    """The labels of one image, from its map.

    Raises:
        CASTError: one of the two cannot be used, or their sizes differ.
    """
    from scipy.ndimage import find_objects  # here, as no other part of this floor needs scipy

    path, map_path = pair
    numbers = read_numbers(map_path)
    image = labeled_image(path, root, map_path)
    size = image.height, image.width
    if numbers.shape != size:
        raise CASTError(
            f'{map_path} is {numbers.shape[1]}x{numbers.shape[0]}, its image '
            f'{image.width}x{image.height}: {explain_sizes(path, size, numbers.shape)}'
        )
    found, places = np.unique(numbers, return_inverse=True)
    places = places.reshape(size)
    image.notes[NO_BACKGROUND] += 0 not in found and (ignore is None or ignore not in found)
    for place, (number, box) in enumerate(zip(found.tolist(), find_objects(places + 1))):
        if number and number != ignore:
            mask = places[box] == place
            image.add(name, encode_crop(mask, [side.start for side in box], size))
            parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
            image.notes[IN_PARTS] += parts > 1
    return image


def read_numbers(path: Path) -> np.ndarray:
    """The numbers of a map, (H, W) int; of one in colours red * 65536 + green * 256 + blue.

    Grey that is saved as colours stays its number. What is transparent is 0.

    Raises:
        CASTError: it is unreadable, of a format that changes numbers, of several pages or of
            colours of more than 8 bits, or has fractions, or a palette whose black is not 0.
    """
    try:
        deep = read_header(path).deep
    except CASTError as error:
        raise CASTError(f'{error}; if its numbers have 64 bits, save it with 16 or 32') from error
    try:
        with open_image(path) as image:
            kind, pages, mode = image.format or '', getattr(image, 'n_frames', 1), image.mode
            palette = image.getpalette() if mode == 'P' else None
            pixels = np.asarray(image if mode in _ONE_NUMBER else image.convert('RGBA'))
    except (OSError, SyntaxError) as error:
        raise unreadable(path) from error
    if kind in _LOSSY:
        raise CASTError(f'{path} is {kind}, which changes numbers a little: save maps as PNG')
    if pages > 1:
        raise CASTError(f'{path} has {pages} pages, and one is read: save a map for each image')
    if pixels.ndim == 3:
        if deep:
            raise CASTError(f'{path} has colours of more than 8 bits: save one number a pixel')
        return _of_colours(pixels)
    if palette and any(palette[:3]) and _black_of(palette) & set(np.unique(pixels).tolist()):
        raise CASTError(
            f'{path} has a palette in which black is not number 0, so that background is unclear: '
            'save it in colours (RGB), or as numbers without a palette'
        )
    if not (np.isfinite(pixels) & (pixels == np.trunc(pixels))).all():
        raise CASTError(f'{path} has numbers with fractions, and counts are wanted: save integers')
    return pixels.astype(int)


def _of_colours(pixels: np.ndarray) -> np.ndarray:
    """The numbers (H, W) of colours with opacity, (H, W, 4)."""
    colours = pixels[..., :3].astype(int)
    gray = (colours == colours[..., :1]).all()
    numbers = colours[..., 0] if gray else colours @ (1 << 16, 1 << 8, 1)
    return np.where(pixels[..., 3] > 0, numbers, 0)


def _black_of(palette: list[int]) -> set[int]:
    """The numbers that a palette, red, green and blue of each, shows black."""
    return {number for number in range(len(palette) // 3) if not any(palette[3 * number :][:3])}
