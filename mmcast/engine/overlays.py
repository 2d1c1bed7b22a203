"""Ground truth and predictions drawn over some validation images, one column a model."""
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from torchvision.utils import draw_segmentation_masks

from mmcast.files import write_atomically
from .checks import check_labels
from .runs import say
from .steps import step_config

if TYPE_CHECKING:
    from .pipeline import Pipeline

_WIDTH = 480  # pixels of an image in the report


@dataclass
class Line:
    """One image: its file name and the drawings, (H, W, 3) uint8 RGB each, one a column."""
    name: str
    images: list[np.ndarray]


@dataclass
class Overlays:
    """All drawings, the titles of their columns, and class name -> colour (#rrggbb)."""
    titles: list[str]
    lines: list[Line]
    legend: dict[str, str]
    score_thr: float


def make_overlays(pipeline: 'Pipeline') -> Overlays | None:
    """Draws what the pipeline's ``report`` asks for; None if it asks for no images.

    ``report`` has ``ann_file``, ``img_dir``, ``columns`` (dicts with ``title``, ``config``, ``checkpoint``)
    and may have ``images`` (how many, default 12) and ``score_thr`` (default 0.3). Predictions are kept in
    ``<work_dir>/report``.

    Raises:
        CASTError: a path is wrong or a checkpoint does not fit its config.
    """
    if 'report' not in pipeline.config:
        return None
    wanted = pipeline.resolve(pipeline.config.report.to_dict(), 'report')
    score_thr = wanted.get('score_thr', 0.3)
    check_labels(wanted['ann_file'], wanted['img_dir'])
    truth = json.loads(Path(wanted['ann_file']).read_text())
    images = choose_images(truth, wanted.get('images', 12))
    folder = pipeline.work_dir / 'report'
    folder.mkdir(exist_ok=True)
    image_list = folder / 'images.json'
    listing = dict(images=images, annotations=[], categories=truth['categories'])
    write_atomically(image_list, json.dumps(listing))

    predictions = [_predict(pipeline, column, image_list, wanted['img_dir'], score_thr)
                   for column in wanted['columns']]
    columns = [truth] + [json.loads(path.read_text()) for path in predictions]
    colours = class_colours([category['name'] for category in truth['categories']])
    lines = []
    for image in images:
        path = Path(wanted['img_dir'], image['file_name'])
        drawings = [draw(path, labels, image['id'], colours) for labels in columns]
        lines.append(Line(image['file_name'], drawings))
    titles = ['ground truth'] + [column['title'] for column in wanted['columns']]
    return Overlays(titles, lines, colours, score_thr)


def choose_images(labels: dict, count: int) -> list[dict]:
    """``count`` images of a COCO label file, evenly spread by id over those that have an annotation."""
    annotated = {item['image_id'] for item in labels['annotations']}
    images = [image for image in labels['images'] if image['id'] in annotated]
    images.sort(key=lambda image: image['id'])
    places = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    return [images[place] for place in places]


def _predict(pipeline: 'Pipeline', column: dict, image_list: Path, img_dir: str, score_thr: float) -> Path:
    """The label file with a model's predictions; made anew only if anything it depends on changed."""
    from mmcast.pseudo_labels import generate_pseudo_labels
    definition = dict(column, kind='test')
    config = step_config(definition, pipeline.path.parent, pipeline.step_options, pipeline.config.get('seed'),
                         amp=False)
    inputs = dict(definition, images=str(image_list), score_thr=score_thr)
    fingerprint = pipeline.state.fingerprint(column['title'], inputs, config.to_dict())
    path = image_list.with_name(f'predictions_{fingerprint.digest[:16]}.json')
    if not path.exists():
        say(f'report: predictions of {column["title"]}')
        generate_pseudo_labels(config, column['checkpoint'], str(path), ann_file=str(image_list),
                               img_dir=img_dir, score_floor=score_thr, progress=False)
    return path


def class_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour (#rrggbb) for each class."""
    palette = matplotlib.colormaps['tab10' if len(names) <= 10 else 'tab20'].colors
    return {name: matplotlib.colors.to_hex(palette[index % len(palette)]) for index, name in enumerate(names)}


def draw(path: Path, labels: dict, image_id: int, colours: dict[str, str]) -> np.ndarray:
    """One image with filled and outlined instances.

    Args:
        path: the image file.
        labels: COCO labels; annotations with a score are drawn best last, thus on top.
        image_id: whose annotations to draw.
        colours: class name -> colour; other classes are grey.

    Returns:
        (H, W, 3) uint8 RGB, ``_WIDTH`` wide.
    """
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    size = (_WIDTH, round(_WIDTH * height / width))
    drawing = torch.from_numpy(cv2.resize(image, size, interpolation=cv2.INTER_AREA)).permute(2, 0, 1)
    names = {category['id']: category['name'] for category in labels['categories']}
    items = [item for item in labels['annotations']
             if item['image_id'] == image_id and not item.get('iscrowd')]
    for item in sorted(items, key=lambda item: item.get('score', 1)):
        mask = cv2.resize(_decode(item['segmentation'], height, width), size, interpolation=cv2.INTER_NEAREST)
        edge = mask - cv2.erode(mask, np.ones((3, 3), np.uint8))
        colour = colours.get(names[item['category_id']], '#808080')
        for part, alpha in ((mask, 0.45), (edge, 1.0)):
            part = torch.from_numpy(part.astype(bool))
            drawing = draw_segmentation_masks(drawing, part, alpha=alpha, colors=colour)
    return drawing.permute(1, 2, 0).contiguous().numpy()


def _decode(segmentation: dict | list, height: int, width: int) -> np.ndarray:
    """A COCO segmentation (polygons, or run lengths of either sort) as (H, W) uint8."""
    coco = COCO()
    coco.imgs = {0: dict(height=height, width=width)}
    return mask_api.decode(coco.annToRLE(dict(image_id=0, segmentation=segmentation)))


def write_contact_sheet(overlays: Overlays, path: Path, count: int = 4) -> None:
    """A PNG with ``count`` of the images, for a README."""
    places = np.linspace(0, len(overlays.lines) - 1, min(count, len(overlays.lines))).round().astype(int)
    lines = [overlays.lines[place] for place in places]
    ratio = max(line.images[0].shape[0] / line.images[0].shape[1] for line in lines)
    columns = len(overlays.titles)
    figure = Figure(figsize=(3.2 * columns, 3.2 * ratio * len(lines) + 0.7), layout='constrained', dpi=100)
    axes = figure.subplots(len(lines), columns, squeeze=False)
    for row, line in zip(axes, lines):
        for axis, image in zip(row, line.images):
            axis.imshow(image)
            axis.axis('off')
    for axis, title in zip(axes[0], overlays.titles):
        axis.set_title(title)
    handles = [matplotlib.patches.Patch(color=colour, label=name) for name, colour in overlays.legend.items()]
    figure.legend(handles=handles, loc='outside lower center', ncols=min(len(handles), 8), frameon=False)
    figure.savefig(path)
