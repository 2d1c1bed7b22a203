"""What can be wrong with a data set, and what to do about it."""

from dataclasses import dataclass

# Kind of finding -> fix.
FIXES = {
    'invalid-json': 'nothing in this file could be checked: make it again or restore a copy',
    'not-coco': 'convert the data set to COCO JSON, see mmcast convert',
    'bad-image-entry': 'give each image an id, a file_name, width and height in pixels (above 0)',
    'duplicate-image-id': 'give every image an id of its own, also in its annotations',
    'duplicate-file': 'list every file once; put all its annotations under that one image id',
    'missing-image': 'put the file there, correct the image folder, or unlist the image',
    'unreadable-image': 'replace the file by an intact PNG or JPEG, or unlist the image',
    'image-size-mismatch': 'labels are for another size: restore the image, or label this one',
    'more-than-8-bits': 'say which values are black and white, variables.value_range of a pipeline '
    '(--value-range here), or save the image with 8 bits',
    'unusable-name': 'rename the file in plain letters',
    'files-left-out': 'fine: hidden files and what systems and programs keep are not used',
    'copied-image': 'keep one of the two: copies in one set count double, in two sets they leak',
    'bad-category': 'give every category an id and a name',
    'duplicate-category': 'give every category an id and a name of its own',
    'bad-annotation-entry': 'give each an id, an image_id and a category_id; iscrowd is 0 or 1',
    'duplicate-annotation-id': 'number the annotations anew: evaluation mixes up those with one id',
    'unlisted-image': 'add the image to the list, or remove the annotation',
    'unknown-category': 'add the category to the list, or correct the category_id',
    'empty-mask': 'remove the annotation, or draw its mask',
    'degenerate-polygon': 'remove it, or draw a polygon of three or more points with an area',
    'malformed-mask': 'write lists [x1, y1, x2, y2, ...] of finite numbers, or an RLE whose '
    'runs fill the image',
    'mask-size-mismatch': 'encode the mask again at the size [height, width] of its image',
    'mask-outside-image': 'clip it to the image; if many are outside, the size or scale is wrong',
    'bad-box': 'compute bbox = [x, y, width, height] in pixels from the mask',
    'bad-area': 'compute area in pixels from the mask',
    'in-val': 'take the image out of one of the two: validation must not see training images',
    'in-val-copy': 'remove the copy from one of the two: validation must not see training images',
    'in-unlabeled': 'take the image out of the unlabeled set, make_splits.py writes such a list',
    'in-unlabeled-copy': 'remove the copy from the unlabeled set',
    'image-without-annotations': 'fine if it shows no object; else label it or unlist it',
    'class-without-annotations': 'fine if this set has none; else look for its labels',
    'same-name-in-val': 'fine: the pixels differ',
    'same-name-in-unlabeled': 'fine: the pixels differ',
}
# These are worth a look and no problem.
NOTES = {
    'files-left-out',
    'image-without-annotations',
    'class-without-annotations',
    'same-name-in-val',
    'same-name-in-unlabeled',
}


@dataclass(frozen=True)
class Finding:
    """One mistake.

    Args:
        kind: a key of ``FIXES``.
        source: the annotation file or folder that lists it.
        file: image file name as listed there; that of the annotation file if it concerns no single
            image.
        detail: what is wrong, in words and numbers.
        image_id: as in the annotation file, None where it does not apply.
        annotation_id: likewise.
    """

    kind: str
    source: str
    file: str
    detail: str
    image_id: int | float | str | None = None
    annotation_id: int | float | str | None = None

    def line(self) -> str:
        """For people, without the kind and in printable characters: damaged names may hold any."""
        ids = [
            f'{what} {value}'
            for what, value in (('image', self.image_id), ('annotation', self.annotation_id))
            if value is not None
        ]
        where = f'{self.file} ({", ".join(ids)})' if ids else self.file
        return printable(f'{where}: {self.detail}')


def printable(text: str) -> str:
    """The text with control characters and broken Unicode escaped."""
    if text.isprintable():
        return text
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)
