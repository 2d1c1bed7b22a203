"""Finds images that are in two places: by path, by name and by their pixels."""

import posixpath

from mmcast.coco.checks.pixels import Pixels
from mmcast.coco.findings import Finding, printable
from mmcast.coco.lists import ImageEntry
from mmcast.coco.versions import version_of


def find_copies(images: list[ImageEntry], pixels: dict[str, Pixels]) -> list[Finding]:
    """Files of one list that hold the same pixels."""
    findings: list[Finding] = []
    first: dict[bytes, ImageEntry] = {}
    for image in images:
        digest = _digest(image, pixels)
        other = first.setdefault(digest, image) if digest else image
        if other.path != image.path:
            findings.append(_finding('copied-image', image, f'the same pixels as {other.name}'))
    return findings


def find_shared(
    images: list[ImageEntry], others: list[ImageEntry], set_name: str, pixels: dict[str, Pixels]
) -> list[Finding]:
    """Labeled images that are in another set too.

    The same name in another folder is a problem if the pixels are the same or not known, else a
    note. Another augmented version of one photo is a problem if it is for validation.

    Args:
        images: the labeled ones.
        others: those of the other set.
        set_name: 'val' or 'unlabeled'.
        pixels: what was read, by path; empty if nothing was.
    """
    by_path = {other.path: other for other in others if other.path}
    by_name = {posixpath.normpath(other.name): other for other in others}
    by_photo = {version_of(other.name): other for other in others if version_of(other.name)}
    by_digest = {_digest(other, pixels): other for other in others if _digest(other, pixels)}
    findings = []
    for image in images:
        digest = _digest(image, pixels)
        namesake = by_path.get(image.path or '') or by_name.get(posixpath.normpath(image.name))
        twin = by_digest.get(digest) if digest else None
        version = by_photo.get(version_of(image.name))
        if namesake:
            other_digest = _digest(namesake, pixels)
            if (
                image.path == namesake.path
                or not digest
                or not other_digest
                or digest == other_digest
            ):
                findings.append(_finding(f'in-{set_name}', image, f'also in {namesake.source}'))
                continue
            findings.append(
                _finding(f'same-name-in-{set_name}', image, f'{namesake.source} has this name too')
            )
        if twin:
            findings.append(
                _finding(
                    f'in-{set_name}-copy', image, f'the same pixels as {twin.name} in {twin.source}'
                )
            )
        elif version:
            detail = f'a version of the photo of {version.name} in {version.source}'
            findings.append(_finding(f'in-{set_name}-version', image, detail))
    return findings


def _digest(image: ImageEntry, pixels: dict[str, Pixels]) -> bytes | None:
    return pixels[image.path].digest if image.path in pixels else None


def _finding(kind: str, image: ImageEntry, detail: str) -> Finding:
    return Finding(kind, image.source, printable(image.name), printable(detail), image.id)
