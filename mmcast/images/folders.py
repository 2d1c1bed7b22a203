"""The images of a folder: which files count, and which names can be used."""

import os
import unicodedata
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmcast.errors import CASTError
from mmcast.images.headers import read_header, readable
from mmcast.images.value_range import ValueRange, parse_value_range

IMAGE_SUFFIXES = (
    '.bmp',
    '.jpeg',
    '.jpg',
    '.png',
    '.tif',
    '.tiff',
    '.webp',
)  # what is an image in a folder
#: Pictures too, that are not read.
_OTHER_SUFFIXES = (
    '.avif',
    '.cr2',
    '.cr3',
    '.czi',
    '.dcm',
    '.dng',
    '.gif',
    '.heic',
    '.heif',
    '.jfif',
    '.jp2',
    '.jxl',
    '.nd2',
    '.nef',
    '.pgm',
    '.ppm',
    '.svs',
)
#: Folders in which systems and programs keep copies and previews; hidden ones are left out too.
_FOREIGN = ('__macosx', '@eadir', '#recycle', '$recycle.bin', 'system volume information')
_SHOWN = 5


@dataclass
class ImageFolder:
    """What :func:`list_folder` found.

    Args:
        images: files to use, in the order of their paths.
        left_out: hidden ones, and those in hidden folders or a system's own.
        unusable: those with a name that cannot be used, and why not.
        unread: pictures of formats that are not read.
    """

    images: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)
    unusable: dict[Path, str] = field(default_factory=dict)
    unread: list[Path] = field(default_factory=list)

    def remarks(self) -> list[str]:
        """Lines that tell what is not used, for a command to print; empty if everything is."""
        lines = []
        if self.left_out:
            lines.append(
                f'{len(self.left_out)} hidden files and copies of programs left out, such as '
                f'{readable(self.left_out[0])}'
            )
        if self.unusable:
            lines.append(f'{_describe(self.unusable)}: left out; rename them')
        if self.unread:
            lines.append(f'{self.unread_formats()}; save them as PNG or JPEG')
        return lines

    def unread_formats(self) -> str:
        """How many files are of formats that are not read, in words."""
        formats = ' '.join(sorted({path.suffix.lower() for path in self.unread}))
        return (
            f'{len(self.unread)} files of formats that are not read ({formats}), such as '
            f'{readable(self.unread[0])}'
        )


def image_files(
    folder: str | os.PathLike, suffixes: Collection[str] = IMAGE_SUFFIXES
) -> list[Path]:
    """The images of a folder, or other files, see :func:`list_folder`.

    Raises:
        CASTError: a folder cannot be listed, or a name cannot be used.
    """
    found = list_folder(folder, suffixes)
    if found.unusable:
        raise CASTError(f'{_describe(found.unusable)}: rename them')
    return found.images


def list_folder(
    folder: str | os.PathLike, suffixes: Collection[str] = IMAGE_SUFFIXES
) -> ImageFolder:
    """All files of a folder at any depth with one of the suffixes, in lower case; none where there
    is no folder.

    Links are followed, each file and folder is taken once. Hidden files and folders (``.name``) and
    those of systems and programs (``__MACOSX``, ``@eaDir``) are left out.

    Raises:
        CASTError: a folder cannot be listed.
    """
    result = ImageFolder()
    if not Path(folder).is_dir():
        return result
    files = dict(_walk(Path(folder), {*suffixes, *_OTHER_SUFFIXES}))
    for path in sorted(files):
        if path.suffix.lower() not in suffixes:
            result.unread += [] if files[path] else [path]
            continue
        problem = name_problem(path.relative_to(folder).as_posix())
        if files[path]:
            result.left_out.append(path)
        elif problem:
            result.unusable[path] = problem
        else:
            result.images.append(path)
    return result


def name_problem(name: str) -> str:
    """Why a file name cannot be used; empty if it can.

    Libraries that write JSON, pages and pictures take no text that is not Unicode, and control
    characters break lines.
    """
    if name.isascii() and name.isprintable():  # nearly all; the rest takes a quarter of the time
        return ''
    kinds = {unicodedata.category(character) for character in name}
    if 'Cs' in kinds:
        return 'is not Unicode'
    return 'has control characters' if kinds & {'Cc', 'Zl', 'Zp'} else ''


def read_sizes(
    paths: Iterable[Path], value_range: ValueRange = None
) -> tuple[dict[Path, tuple[int, int]], dict[Path, str]]:
    """Heights and widths of images, upright, by path; and why others cannot be used.

    Only headers are read: damaged pixels are found when an image is loaded.

    Args:
        paths: the files.
        value_range: without one, images of more than 8 bits cannot be used.
    """
    sizes, problems = {}, {}
    for path in paths:
        try:
            header = read_header(path)
        except CASTError as error:
            problems[path] = str(error)
            continue
        if header.deep and parse_value_range(value_range) is None:
            problems[path] = (
                f'image {readable(path)} has more than 8 bits; set variables.value_range'
            )
        else:
            sizes[path] = header.size
    return sizes, problems


def _describe(problems: dict) -> str:
    shown = ', '.join(
        f'{os.fspath(name)!a} {problem}' for name, problem in list(problems.items())[:_SHOWN]
    )
    more = f' and {len(problems) - _SHOWN} more' if len(problems) > _SHOWN else ''
    return f'file names that cannot be used: {shown}{more}'


def _walk(folder: Path, suffixes: Collection[str]) -> Iterator[tuple[Path, bool]]:
    """Files with the suffixes, and whether they are to be left out.

    What lies in the folder itself comes before what links lead to, so that a file that is in both
    is found where it lies. Links into a hidden folder count: some tools keep all files in one.
    """
    seen: set[str] = set()  # real paths
    linked: deque[Path] = deque()
    waiting = [(folder, os.path.realpath(folder), False)]
    while waiting or linked:
        if not waiting:
            path = linked.popleft()
            real = os.path.realpath(path)
            if os.path.isdir(path):
                waiting.append((path, real, False))
            elif real not in seen:
                seen.add(real)
                yield path, False
            continue
        place, real, left_out = waiting.pop()
        if real in seen:
            continue
        if not left_out:
            seen.add(real)
        for entry in _entries(place):
            hidden = left_out or entry.name.startswith('.') or entry.name.lower() in _FOREIGN
            path, real_path = place / entry.name, os.path.join(real, entry.name)
            is_wanted = path.suffix.lower() in suffixes
            if entry.is_symlink():
                # DirEntry.is_dir raises an error for a link to itself, this does not.
                is_folder = os.path.isdir(path)
                if hidden and is_wanted and not is_folder:
                    yield path, True
                elif not hidden and (is_wanted or is_folder):
                    linked.append(path)
            elif entry.is_dir():
                waiting.append((path, real_path, hidden))
            elif is_wanted and entry.is_file():
                if not hidden:
                    seen.add(real_path)
                yield path, hidden


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise CASTError(
            f'folder {readable(folder)} cannot be listed ({error.strerror}); give read permission, '
            'or move it away'
        ) from error
