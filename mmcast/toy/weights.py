"""The committed recipe of the shipped weights: foundation teachers and pretrained students."""

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from torch import Tensor

from mmcast.coco.converters.cityscapes import convert_cityscapes
from mmcast.errors import CASTError
from mmcast.files import write_atomically
from mmcast.models.weights.reading import read_state_dict, write_state_dict
from mmcast.models.weights.start import fit_start_weights
from mmcast.toy.cityscapes import generate_toy_cityscapes
from mmcast.toy.nuclei import generate_toy_nuclei
from mmcast.training.checkpoints import latest_intact_checkpoint
from mmcast.training.runner import train_run

STREETS = {'source': 'data/toy_cityscapes_source', 'varied': 'data/toy_cityscapes_varied'}
NUCLEI = 'data/toy_nuclei'
NUM_TRAIN, NUM_VAL = 3000, 60


@dataclass(frozen=True)
class Recipe:
    """How one weights file is made: by training with ``configs`` one after the other.

    ``start`` is the file of another recipe to start from, with its queries repeated up to
    ``num_queries``.
    """

    configs: tuple[str, ...]
    start: str | None = None
    num_queries: int | None = None


RECIPES = {
    'toy_teacher.pth': Recipe(('toy/toy_teacher_source.py', 'toy/toy_teacher_varied.py')),
    'toy_student.pth': Recipe(('toy/toy_student_source.py',)),
    'nuclei_teacher.pth': Recipe(
        ('dsb2018/dsb2018_teacher_source.py', 'dsb2018/dsb2018_teacher_source_longer.py'),
        'toy_teacher.pth',
        48,
    ),
    'nuclei_student.pth': Recipe(('dsb2018/dsb2018_student_source.py',), 'toy_student.pth', 48),
}


def make_toy_weights(config_dir: str, out_dir: str, work_dir: str) -> list[Path]:
    """Generate the data, train every network on it and write the weights in half precision.

    The toy's teacher sees varied street scenes after those of a clear day, the student those of a
    clear day only; the nuclei's networks start from the toy's and learn on synthetic microscopy
    images. That is between three and four hours on two cores. Called again, an interrupted run
    resumes from its last checkpoint; no file is in ``out_dir`` before all are made.

    Args:
        config_dir: The folder ``configs``.
        out_dir: Where the files go.
        work_dir: Where the runs keep logs and checkpoints, and in ``packed`` finished weights.

    Raises:
        CASTError: If an output exists that an earlier call with this ``work_dir`` did not make.
    """
    packed = Path(work_dir, 'packed')
    for name in RECIPES:
        target, made = Path(out_dir, name), packed / name
        if target.exists() and not (made.exists() and target.read_bytes() == made.read_bytes()):
            raise CASTError(
                f'{target} exists and is not overwritten: move it away or choose another folder'
            )
    _draw_data()
    for name, recipe in RECIPES.items():
        if not (packed / name).exists():
            pack_weights(_train(recipe, Path(config_dir), Path(work_dir), packed), packed / name)
    for name in RECIPES:
        write_atomically(Path(out_dir, name), (packed / name).read_bytes())
    return [Path(out_dir, name) for name in RECIPES]


def _draw_data() -> None:
    for domain, root in STREETS.items():
        generate_toy_cityscapes(root, domain=domain, num_train=NUM_TRAIN, num_val=NUM_VAL)
        for split in ('train', 'val'):
            convert_cityscapes(root, split, f'{root}/annotations/instances_{split}.json')
    generate_toy_nuclei(NUCLEI, num_train=NUM_TRAIN, num_val=NUM_VAL)


def _train(recipe: Recipe, config_dir: Path, work_dir: Path, packed: Path) -> str | Path:
    """Train by a recipe, or resume; the last checkpoint."""
    checkpoint: str | Path = ''
    if recipe.start:
        stem = Path(recipe.start).stem
        checkpoint = fit_start_weights(
            work_dir / 'start', recipe.num_queries, **{stem: str(packed / recipe.start)}
        )[stem]
    for name in recipe.configs:
        config = Config.fromfile(str(config_dir / name))
        config.work_dir = str(work_dir / Path(name).stem)
        config.load_from = str(checkpoint) or None
        checkpoint = train_run(config, latest_intact_checkpoint(Path(config.work_dir))).checkpoint
    return checkpoint


def pack_weights(checkpoint: str | Path, out_file: str | Path) -> None:
    """Write the network of a ``CASTDetector``'s checkpoint as a plain detector's weights in half
    precision.
    """
    part = 'detector.'
    kept: dict[str, Tensor] = {
        key.removeprefix(part): value.half() if value.is_floating_point() else value
        for key, value in read_state_dict(checkpoint).items()
        if key.startswith(part)
    }
    write_state_dict(out_file, kept)
