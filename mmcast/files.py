"""Read and write files: readable errors, whole files or none, nothing overwritten silently."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from mmcast.errors import CASTError


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a file, and its folder if need be, so that a reader finds the old or the new content
    whole.

    That holds after a kill and a power failure too: a neighbouring temporary file is written and
    renamed.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def replace_durably(source: Path, target: Path) -> None:
    """Gives a finished file its name, so that a power failure too leaves the old or the new one."""
    with source.open('rb+') as file:
        os.fsync(file.fileno())
    os.replace(source, target)


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
