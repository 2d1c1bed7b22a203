"""Maps in which every object has a number of its own, one for each image, to COCO JSON."""

import os
from collections import Counter
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from mmcast.coco.converters.exports import (
    ImageLabels,
    Written,
    labeled_image,
    read_all,
    write_exports,
)
from mmcast.coco.converters.instance_maps import unreadable
from mmcast.errors import CASTError
from mmcast.images import image_files, open_image
from mmcast.masks.rle import encode_mask

OUT_FILE = 'annotations/instances.json'
NO_MAP = 'images without a map left out'
IN_PARTS = 'objects in several parts: right if one number is one object, wrong if it is a class'
# What the name of a map has behind that of its image, where nobody says; the first that fits.
ENDINGS = ('_cp_masks', '_masks', '_mask', '_instances', '_labels', '_label')
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
        CASTError: see :func:`match_maps`; a map is unreadable or of another size than its image;
            the maps seem to be of classes; or see :func:`write_exports`.
    """
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
        maps: Folder of maps; may be the same.
        ending: What the name of a map has behind that of its image; None: found.

    Raises:
        CASTError: a folder is missing, no ending fits all maps, or two images have one name.
    """
    for folder in (images, maps):
        if not folder.is_dir():
            raise CASTError(f'{folder} is missing: name the folders with --images and --maps')
    pictures, named = _by_stem(images), _by_stem(maps)
    together = images.resolve() == maps.resolve()
    for known in [*ENDINGS, ''] if ending is None else [ending]:
        found = {
            stem.removesuffix(known): path for stem, path in named.items() if stem.endswith(known)
        }
        if together:
            found = {stem: path for stem, path in found.items() if known and stem in pictures}
            owned = {stem: path for stem, path in pictures.items() if path not in found.values()}
        else:
            owned = pictures
        if found and set(found) <= set(owned) and (together or len(found) == len(named)):
            pairs = [(owned[stem], found[stem]) for stem in sorted(found)]
            return pairs, len(owned) - len(pairs)
    lonely = next((path for stem, path in named.items() if stem not in pictures), maps)
    raise CASTError(
        f'{images} has no images for all maps of {maps}, such as for {lonely.name}: the name of a '
        f'map is that of its image and an ending ({", ".join(ENDINGS)}, or that of --ending)'
    )


def _by_stem(folder: Path) -> dict[str, Path]:
    """The images of a folder by their names below it, without what follows the dot."""
    found: dict[str, Path] = {}
    for path in image_files(folder):
        stem = path.relative_to(folder).with_suffix('').as_posix()
        if stem in found:
            raise CASTError(f'{found[stem]} and {path} have one name: keep one of them')
        found[stem] = path
    return found


def read_numbered_map(
    root: Path, name: str, ignore: int | None, pair: tuple[Path, Path]
) -> ImageLabels:
    """The labels of one image, from its map.

    Raises:
        CASTError: one of the two cannot be used, or their sizes differ.
    """
    path, map_path = pair
    numbers = read_numbers(map_path)
    image = labeled_image(path, root, map_path)
    if numbers.shape != (image.height, image.width):
        raise CASTError(
            f'{map_path} is {numbers.shape[1]}x{numbers.shape[0]}, its image '
            f'{image.width}x{image.height}: give maps of the size of the images'
        )
    found, places = np.unique(numbers, return_inverse=True)
    places = places.reshape(numbers.shape)
    for place, number in enumerate(found.tolist()):
        if number and number != ignore:
            mask = places == place
            image.add(name, encode_mask(mask))
            parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
            image.notes[IN_PARTS] += parts > 1
    return image


def read_numbers(path: Path) -> np.ndarray:
    """The numbers of a map, (H, W) int; of one in colours red * 65536 + green * 256 + blue.

    Raises:
        CASTError: it is unreadable, or has fractions.
    """
    try:
        with open_image(path) as image:
            pixels = np.asarray(image if image.mode in _ONE_NUMBER else image.convert('RGB'))
    except (OSError, SyntaxError) as error:
        raise unreadable(path) from error
    if pixels.ndim == 3:
        return pixels.astype(int) @ (1 << 16, 1 << 8, 1)
    numbers = pixels.astype(int)
    if (numbers != pixels).any():
        raise CASTError(f'{path} has numbers with fractions, and counts are wanted: save integers')
    return numbers
