"""Which images are versions of one photo."""

import posixpath
import re
from collections.abc import Iterable

# Roboflow's augmented versions of one photo: NAME.rf.HASH.jpg
_VERSION = re.compile(r'(?P<photo>.+)\.rf\.[0-9A-Za-z]{8,}\.\w+')


def photo_of(name: str) -> str:
    """What the versions of one photo have in common; for other images their normal path.

    Args:
        name: of an image file, with or without its folder.
    """
    return version_of(name) or posixpath.normpath(name)


def version_of(name: str) -> str | None:
    """The photo of which an image is a version, by its name; None for other images."""
    found = _VERSION.fullmatch(posixpath.basename(name))
    return found['photo'] if found else None


def ids_by_photo(images: Iterable[dict]) -> dict[str, list[int]]:
    """Ids of COCO's images by their photo, in their order."""
    photos: dict[str, list[int]] = {}
    for image in images:
        photos.setdefault(photo_of(image['file_name']), []).append(image['id'])
    return photos
