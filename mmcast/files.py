"""Read and write files: readable errors, whole files or none, nothing overwritten silently."""

import codecs
import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmcast.errors import CASTError

# Files or folders where base weights of LoRA adapters are looked for first, separated as in PATH.
BASE_WEIGHTS = 'MMCAST_BASE_WEIGHTS'
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WEIGHTS = (
    (b'version https://git-lfs', 'a Git LFS pointer, not the file itself: run git lfs pull'),
    (b'\x1f\x8b', 'a gzip archive: unpack it'),
    (b'BZh', 'a bzip2 archive: unpack it'),
    (b'\xfd7zXZ\x00', 'an xz archive: unpack it'),
    (b'7z\xbc\xaf\x27\x1c', 'a 7-Zip archive: unpack it'),
    (b'\x89HDF', 'an HDF5 file, which Keras writes: give weights of PyTorch'),
)


class WriteError(CASTError, OSError):
    """A file that could not be written: names it, why, and what to do.

    Its ``errno``, ``strerror`` and ``filename`` are those of the system's error.
    """

    __str__ = Exception.__str__

    @classmethod
    def of(cls, path: str | os.PathLike, error: OSError) -> 'WriteError':
        """The error that says of the system's one which file it concerns."""
        reason = error.strerror or str(error)
        fix = 'make its folder writable, or give another one'
        if error.errno in _FULL:
            free = free_bytes(path) if error.errno == errno.ENOSPC else None
            reason += '' if free is None else f', {free / 1e6:.0f} MB free'
            fix = 'make room there and give the same command again'
        elif error.errno == errno.EFBIG:
            fix = 'raise the limit of file sizes (ulimit -f), and give the same command again'
        elif error.errno == errno.ENAMETOOLONG:
            fix = 'give a shorter name'
        new = cls(f'cannot write {os.fspath(path)} ({reason}): {fix}')
        new.errno, new.strerror, new.filename = error.errno, error.strerror, os.fspath(path)
        return new


def free_bytes(path: str | os.PathLike) -> int | None:
    """Free space on a file's disk; None where the system does not tell."""
    try:
        folder = next(parent for parent in Path(path).absolute().parents if parent.is_dir())
        return shutil.disk_usage(folder).free
    except (OSError, StopIteration):
        return None


@contextlib.contextmanager
def naming(path: str | os.PathLike, *others: str | os.PathLike) -> Iterator[None]:
    """Gives the system's errors of a block that writes a file its name.

    The system names a file that it cannot open, and none when the disk is full.

    Args:
        path: the file, or a folder in which the block writes.
        *others: what the file is called meanwhile.

    Raises:
        WriteError: in place of an ``OSError`` that names no file, or one of these.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        named = error.filename is not None and str(error.filename) not in map(str, (path, *others))
        if error.errno is None or named:
            raise
        raise WriteError.of(path, error) from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike, suffix: str = '') -> Iterator[Path]:
    """An empty new file beside another, which takes its place where the block ends without an
    error, and is removed where not.

    A reader finds the old or the new file whole, after a kill and a power failure too. Permissions
    follow the umask, or are those of the file replaced.

    Args:
        path: of the file; its folder is made if need be.
        suffix: of the new file's name.

    Raises:
        WriteError: the system cannot write.
    """
    path = Path(path)
    # Shorter than a name may be, whatever the file is called.
    temporary = path.with_name(f'.{path.name[:50]}.{secrets.token_hex(4)}{suffix}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.open('xb').close()
    except OSError as error:
        raise WriteError.of(path, error) from error
    try:
        with naming(path, temporary):
            yield temporary
            _sync(temporary)
            _copy_mode(path, temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _copy_mode(path: Path, new: Path) -> None:
    """Gives a new file the permissions of one that may exist; not every file system has any."""
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode != stat.S_IMODE(new.stat().st_mode):
            new.chmod(mode)


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a file, and its folder if need be, so that a reader finds the old or the new content
    whole.

    That holds after a kill and a power failure too, see :func:`replacing`.

    Raises:
        WriteError: the system cannot write it.
    """
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def check_is_binary(path: str | os.PathLike, what: str) -> None:
    """Refuses what stands in place of a large binary file so often: a web page, a Git LFS pointer,
    an archive, a folder.

    Args:
        path: an existing file or folder.
        what: kind of file that it should be, as "a weights file".

    Raises:
        CASTError: it is something else, and what; or it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        raise CASTError(f'{path} is a folder, not {what}: give a file')
    if not path.is_file():
        raise CASTError(f'{path} is not a regular file: give {what}')
    try:
        with path.open('rb') as file:
            head = file.read(512)
    except OSError as error:
        raise CASTError(
            f'{path} cannot be read ({error.strerror}): check its permissions'
        ) from error
    found = _what_it_is(head)
    if found:
        raise CASTError(f'{path} is not {what} but {found}')


def _what_it_is(head: bytes) -> str | None:
    """What a file is, and what to do, by its first bytes; None where it may be what it should."""
    if not head:
        return 'empty (0 bytes): download or make it again'
    if head.lstrip()[:15].lower().startswith((b'<!doctype html', b'<html')):
        return 'a web page (HTML): download the file itself, which may need another address'
    for signature, found in _NOT_WEIGHTS:
        if head.startswith(signature):
            return found
    try:
        text = codecs.getincrementaldecoder('utf-8')().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None
    if all(character.isprintable() or character in '\t\r\n\f' for character in text):
        begins = text.strip().split('\n')[0][:40].strip()
        return f'a text file, which begins "{begins}": check the path, or download it again'
    return None


def replace_durably(source: Path, target: Path) -> None:
    """Gives a finished file its name, so that a power failure too leaves the old or the new one."""
    _sync(source)
    os.replace(source, target)


def _sync(path: Path) -> None:
    """Waits until a file's content is on the disk."""
    with path.open('rb+') as file:
        os.fsync(file.fileno())


def move_aside(path: str | os.PathLike) -> Path | None:
    """Renames a file or folder to ``<name>.old<n>``, the first free n; None if there is nothing."""
    path = Path(path)
    if not path.exists():
        return None
    number = 1
    while (backup := path.with_name(f'{path.name}.old{number}')).exists():
        number += 1
    path.rename(backup)
    return backup


def prepare_out_dir(folder: str | os.PathLike, names: Iterable[str], force: bool) -> Path:
    """Makes the folder of a command's ``--out``; before the work, not after it.

    Args:
        folder: the folder.
        names: files that the command writes into it.
        force: whether these may be there already.

    Raises:
        CASTError: one of them is there, or the folder cannot be made.
    """
    folder = Path(folder)
    existing = [folder / name for name in names if (folder / name).exists()]
    if existing and not force:
        raise CASTError(f'{existing[0]} exists: delete it, choose another --out or use --force')
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CASTError(
            f'cannot write to {folder} ({error.strerror}); choose another --out'
        ) from error
    return folder


def sha256_of_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def size_of_file(path: str | os.PathLike) -> int:
    """In bytes; -1 where there is no such file."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):  # the latter where no file can have such a name
        return -1


def sha256_of_json(content: Any) -> str:
    """SHA-256 of lists, dicts, texts and numbers in their order, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def write_json(path: str | os.PathLike, content: dict, force: bool = False) -> None:
    """Write one JSON file, see :func:`write_json_files`."""
    write_json_files({path: content}, force)


def write_json_files(contents: dict[str | os.PathLike, dict], force: bool = False) -> None:
    """Write JSON files by path; the same content is left alone, another one refused unless `force`.

    Raises:
        CASTError: if a file exists with different content and `force` is not set; then none is
            written.
    """
    encoded = {Path(path): json.dumps(content).encode() for path, content in contents.items()}
    changed = [
        path for path, data in encoded.items() if not path.exists() or path.read_bytes() != data
    ]
    for path in changed:
        if path.exists() and not force:
            raise CASTError(
                f'{path} exists with different content: delete it, name another file or use --force'
            )
    for path in changed:
        write_atomically(path, encoded[path])
