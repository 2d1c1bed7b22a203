"""Read and write files: readable errors, whole files or none, nothing overwritten silently."""
import hashlib
import json
import os
import tempfile
from pathlib import Path

from mmcast.errors import CASTError

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')  # what is an image in a folder


def image_files(folder: str | os.PathLike) -> list[Path]:
    """All image files of a folder, at any depth, in the order of their paths; none where there is no folder."""
    return sorted(path for path in Path(folder).rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES)


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a file, and its folder if need be, so that a reader finds the old or the new content whole.

    That holds after a kill and a power failure too: a neighbouring temporary file is written and renamed.
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
        CASTError: if a file exists with different content and `force` is not set; then none is written.
    """
    encoded = {Path(path): json.dumps(content).encode() for path, content in contents.items()}
    changed = [path for path, data in encoded.items() if not path.exists() or path.read_bytes() != data]
    for path in changed:
        if path.exists() and not force:
            raise CASTError(
                f'{path} exists with different content: delete it, name another file or use --force')
    for path in changed:
        write_atomically(path, encoded[path])


def read_coco(path: str | os.PathLike) -> dict:
    """Read a COCO annotation file.

    Raises:
        CASTError: if it is missing, not JSON or without `images`, `categories` or `annotations`.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise CASTError(
            f'{path}: cannot read the annotation file ({error.strerror}): check the path') from error
    except ValueError as error:
        raise CASTError(f'{path} is not valid JSON ({error}): make the annotation file again') from error
    missing = [key for key in ('images', 'annotations', 'categories')
               if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise CASTError(f'{path} is no COCO annotation file, it has no list {", ".join(missing)}: '
                        'convert the data set with tools/dataset_converters')
    return content
