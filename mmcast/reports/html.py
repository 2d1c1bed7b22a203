"""What every page that we write shares: one self-contained HTML file from a template, pictures
inside.
"""

import base64
import io
from pathlib import Path
from typing import Any

import cv2
import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure


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
    return environment.get_template(template.name).render(**values)


def photo(image: np.ndarray) -> str:
    """An RGB image (H, W, 3) as data URI."""
    _, data = cv2.imencode(
        '.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88]
    )
    return data_uri(data.tobytes(), 'jpeg')


#: For functions that draw names: a ``$`` in them is no formula.
literal_text = matplotlib.rc_context({'text.parse_math': False})


def diagram(figure: Figure) -> str:
    """A figure of matplotlib as data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='svg')
    return data_uri(buffer.getvalue(), 'svg+xml')


def data_uri(data: bytes, kind: str) -> str:
    """An image file's content, of type image/``kind``, as data URI."""
    return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


def percent(share: float | None) -> str:
    """A fraction as percentage; '-' for an unknown one."""
    return '-' if share is None else f'{100 * share:.1f}'
