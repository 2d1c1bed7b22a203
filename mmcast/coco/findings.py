"""What can be wrong with a label file or a data set, and what happens or is to be done about it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Args:
        level: 'refused', training does not begin with it; 'problem', worth a correction; 'mended',
            training reads it rightly all the same; or 'note', worth a look.
        what: its plural, as it follows a number.
        fix: what to do about it; of what is mended, how.
    """

    level: str
    what: str
    fix: str


KINDS = {
    'invalid-json': Kind(
        'refused',
        'files that are no JSON',
        'nothing in this file could be checked: make it again or restore a copy',
    ),
    'not-coco': Kind(
        'refused',
        'files that are no COCO',
        'convert the data set to COCO JSON, see mmcast convert',
    ),
    'bad-image-entry': Kind(
        'refused',
        'images without a usable id, file_name or size',
        'give each image an id, a file_name, width and height in pixels (above 0)',
    ),
    'duplicate-image-id': Kind(
        'refused',
        'images with the id of another',
        'give every image an id of its own, also in its annotations',
    ),
    'duplicate-file': Kind(
        'refused',
        'images that are listed twice',
        'list every file once; put all its annotations under that one image id',
    ),
    'missing-image': Kind(
        'problem',
        'missing images',
        'put the file there, correct the image folder, or unlist the image',
    ),
    'unreadable-image': Kind(
        'problem',
        'unreadable images',
        'replace the file by an intact PNG or JPEG, or unlist the image',
    ),
    'image-size-mismatch': Kind(
        'problem',
        'images of another size',
        'labels are for another size: restore the image, or label this one',
    ),
    'more-than-8-bits': Kind(
        'problem',
        'images of more than 8 bits',
        'say which values are black and white, variables.value_range of a pipeline (--value-range '
        'here), or save the image with 8 bits',
    ),
    'unusable-name': Kind(
        'refused', 'files whose names cannot be used', 'rename the file in plain letters'
    ),
    'copied-image': Kind(
        'problem',
        'copies of images',
        'keep one of the two: copies in one set count double, in two sets they leak',
    ),
    'bad-category': Kind(
        'refused',
        'categories without a usable id or name',
        'give every category an id and a name',
    ),
    'twin-category': Kind(
        'refused',
        'names of several categories with annotations',
        'rename all but one, or give their annotations one id',
    ),
    'bad-annotation-entry': Kind(
        'refused',
        'annotations without a usable image_id, category_id or iscrowd',
        'give each an id, an image_id and a category_id; iscrowd is 0 or 1',
    ),
    'unlisted-image': Kind(
        'refused',
        'annotations of images that are not listed',
        'add the image to the list, or remove the annotation',
    ),
    'unknown-category': Kind(
        'refused',
        'annotations of categories that are not listed',
        'add the category to the list, or correct the category_id',
    ),
    'empty-mask': Kind(
        'refused',
        'annotations without a mask (boxes alone)',
        'label polygons or masks, or remove the annotation',
    ),
    'malformed-mask': Kind(
        'refused',
        'malformed masks',
        'write lists [x1, y1, x2, y2, ...] of finite numbers, or an RLE whose runs fill the image',
    ),
    'mask-size-mismatch': Kind(
        'refused',
        'masks of another size than their image',
        'encode the mask again at the size [height, width] of its image',
    ),
    'mask-far-outside': Kind(
        'refused',
        'masks that lie far outside their image',
        'correct the size or scale: coordinates are pixels of the listed width and height',
    ),
    'no-instances': Kind(
        'problem',
        'files without a single object',
        'give a file with labels; nothing can be learned from iscrowd=1, which says that nobody '
        'separated the objects: if each mask is one, set variables.crowd_as_instances=True (here '
        '--crowd-as-instances), or write iscrowd 0',
    ),
    'many-crowds': Kind(
        'problem',
        'files with many groups',
        'training takes iscrowd=1 for background; if each mask is one object (some exports of '
        'brush masks write 1), set variables.crowd_as_instances=True (here --crowd-as-instances), '
        'or write iscrowd 0',
    ),
    'bad-box': Kind(
        'problem',
        'boxes that are not those of the mask',
        'compute bbox = [x, y, width, height] in pixels from the mask; training does',
    ),
    'bad-area': Kind(
        'problem',
        'areas that are not those of the mask',
        'compute area in pixels from the mask; training does',
    ),
    'in-val': Kind(
        'problem',
        'images that are for validation too',
        'take the image out of one of the two: validation must not see training images',
    ),
    'in-val-copy': Kind(
        'problem',
        'copies of validation images',
        'remove the copy from one of the two: validation must not see training images',
    ),
    'in-val-version': Kind(
        'problem',
        'versions of validation images',
        'keep all versions of a photo on one side: validation must not see training photos',
    ),
    'in-unlabeled': Kind(
        'problem',
        'images that are unlabeled too',
        'take the image out of the unlabeled set, make_splits.py writes such a list',
    ),
    'in-unlabeled-copy': Kind(
        'problem', 'copies of unlabeled images', 'remove the copy from the unlabeled set'
    ),
    'byte-order-mark': Kind('mended', 'files with a byte order mark', 'mended: it is skipped'),
    'id-type': Kind(
        'mended',
        'ids that are no whole numbers',
        'mended: they become whole numbers, in the lists and in what refers to them',
    ),
    'duplicate-category': Kind(
        'mended',
        'categories without annotations that have the name of another',
        'mended: they are left out',
    ),
    'annotation-ids': Kind(
        'mended',
        'files with annotation ids that are no whole number above 0',
        'mended: all annotations are numbered from 1',
    ),
    'duplicate-annotation-id': Kind(
        'mended',
        'annotations with the id of another',
        'mended: all annotations are numbered from 1',
    ),
    'no-size': Kind(
        'mended',
        'images whose width and height are missing or no whole numbers',
        'mended: missing ones are read from the image, or from its run lengths',
    ),
    'crowd-value': Kind(
        'mended',
        'annotations whose iscrowd is missing or no number',
        'mended: it becomes 0 or 1; what is to be ignored becomes 1',
    ),
    'polygon-layout': Kind(
        'mended',
        'polygons written as points or without the list of parts',
        'mended: they are written as COCO does',
    ),
    'empty-part': Kind(
        'mended', 'masks with an empty part beside others', 'mended: it is left out'
    ),
    'degenerate-polygon': Kind(
        'mended',
        'masks with polygons of under three points or without area',
        'mended: these polygons are left out, and an annotation that has no other',
    ),
    'no-pixel': Kind(
        'mended',
        'annotations without a pixel in their image',
        'mended: the annotation is left out; if there are many, the size or scale is wrong',
    ),
    'no-box': Kind('mended', 'missing or unusable boxes', 'mended: bbox is that of the mask'),
    'no-area': Kind('mended', 'missing or unusable areas', 'mended: area is that of the mask'),
    'mask-outside-image': Kind(
        'note',
        'masks that reach out of their image',
        'fine: they are clipped; if many are outside, the size or scale is wrong',
    ),
    'image-without-annotations': Kind(
        'note',
        'images without annotations',
        'fine if it shows no object; else label it or unlist it',
    ),
    'class-without-annotations': Kind(
        'note',
        'classes without annotations',
        'fine if this set has none; else look for its labels',
    ),
    'many-instances': Kind(
        'note',
        'images with very many instances',
        'cast_custom.py finds at most variables.max_queries objects an image; raise it, or tile',
    ),
    'turned-image': Kind(
        'note',
        'images that their orientation turns and leaves as large as they were',
        'fine if the labels are of the upright picture, which most tools show; --sheet draws them',
    ),
    'files-left-out': Kind(
        'note',
        'files that are left out',
        'fine: hidden files and what systems and programs keep are not used',
    ),
    'unread-format': Kind(
        'note',
        'pictures of formats that are not read',
        'save them as PNG or JPEG if they are to be used',
    ),
    'in-unlabeled-version': Kind(
        'note',
        'versions of unlabeled images',
        'fine: unlabeled versions of labeled photos add little and harm nothing',
    ),
    'same-name-in-val': Kind('note', 'names of validation images', 'fine: the pixels differ'),
    'same-name-in-unlabeled': Kind('note', 'names of unlabeled images', 'fine: the pixels differ'),
}
FIXES = {name: kind.fix for name, kind in KINDS.items()}
# These are worth a look and no problem.
NOTES = {name for name, kind in KINDS.items() if kind.level in ('mended', 'note')}
REFUSED = {name for name, kind in KINDS.items() if kind.level == 'refused'}
# What the reader changes in its copy.
_CHANGED = {name for name, kind in KINDS.items() if kind.level == 'mended'} | {
    'bad-box',
    'bad-area',
}


@dataclass(frozen=True)
class Finding:
    """One mistake.

    Args:
        kind: a key of ``KINDS``.
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


@dataclass
class Tally:
    """How many findings of each kind there are, with the first of each.

    Args:
        source: the label file.
    """

    source: str
    counts: Counter = field(default_factory=Counter)
    first: dict[str, Finding] = field(default_factory=dict)

    def add(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.counts[finding.kind] += 1
            self.first.setdefault(finding.kind, finding)

    def refusal(self) -> str:
        """One line for all that the file is refused for, '' if that is nothing."""
        found = [kind for kind in KINDS if kind in REFUSED and kind in self.counts]
        if not found:
            return ''
        if found[0] in ('invalid-json', 'not-coco'):
            return printable(
                f'{self.source} is not a valid COCO annotation file '
                f'({self.first[found[0]].detail}): {KINDS[found[0]].fix}'
            )
        said = '; '.join(map(self._line, found))
        fix = KINDS[found[0]].fix if len(found) == 1 else 'correct the file or the tool it is from'
        return printable(
            f'{self.source} cannot be used: {said}; {fix}; mmcast check {self.source} --no-images '
            'lists them all'
        )

    def mended(self) -> list[str]:
        """A line for each kind of what was mended."""
        return [
            printable(f'{self.source}: {self._line(kind)}; {KINDS[kind].fix}')
            for kind in KINDS
            if kind in _CHANGED and kind in self.counts
        ]

    def _line(self, kind: str) -> str:
        """A kind with its number and the first example."""
        what, number, first = KINDS[kind].what, self.counts[kind], self.first[kind]
        example = self._example(first)
        if number == 1 and example == first.detail:  # of the file as a whole
            return f'{what}: 1 ({example})'
        return f'{what}: {number}, such as {example}'

    def _example(self, first: Finding) -> str:
        ids = [
            f'{what} {value!r}' if isinstance(value, str) else f'{what} {value}'
            for what, value in (('annotation', first.annotation_id), ('image', first.image_id))
            if value is not None
        ]
        if first.file != self.source:
            ids.append(first.file)
        return f'{" of ".join(ids[:2])} ({first.detail})' if ids else first.detail


def printable(text: str) -> str:
    """The text with control characters and broken Unicode escaped."""
    if text.isprintable():
        return text
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)
