"""What every page that we write shares: one self-contained HTML file from a template, pictures
inside.
"""

import base64
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

from mmcast.coco.findings import printable


def render(template: Path, **values: Any) -> str:
    """The page of a Jinja template; values are escaped, and the filter ``photo`` makes pictures of
    arrays.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['photo'] = photo
    page = environment.get_template(template.name).render(**values)
    return page.encode('utf-8', 'backslashreplace').decode()  # names may be no Unicode


def photo(image: np.ndarray) -> str:
    """An RGB image (H, W, 3) as data URI."""
    _, data = cv2.imencode(
        '.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88]
    )
    return data_uri(data.tobytes(), 'jpeg')


def plot_text(name: str) -> str:
    """A name for matplotlib, to which dollars are formulas and what begins with _ is no label."""
    text = printable(name).replace('$', r'\$')
    return f' {text}' if text.startswith('_') else text


def data_uri(data: bytes, kind: str) -> str:
    """An image file's content, of type image/``kind``, as data URI."""
    return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


def percent(share: float | None) -> str:
    """A fraction as percentage; '-' for an unknown one."""
    return '-' if share is None else f'{100 * share:.1f}'
