"""Reading of COCO annotation files."""

import json
import os
from pathlib import Path

from mmcast.errors import CASTError


def read_coco(path: str | os.PathLike) -> dict:
    """Read a COCO annotation file.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        CASTError: if it is missing, not JSON or without `images`, `categories` or `annotations`.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise CASTError(
            f'{path}: cannot read the annotation file ({error.strerror}): check the path'
        ) from error
    except ValueError as error:
        raise CASTError(
            f'{path} is not valid JSON ({error}): make the annotation file again'
        ) from error
    missing = [
        key
        for key in ('images', 'annotations', 'categories')
        if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]
    if missing:
        raise CASTError(
            f'{path} is not a valid COCO annotation file, it has no list '
            f'{", ".join(missing)}: convert the data set with mmcast convert'
        )
    return content
