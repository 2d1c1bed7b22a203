"""The committed recipe of the shipped weights: foundation teachers and a pretrained student."""
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from torch import Tensor

from mmcast.datasets.cityscapes import convert_cityscapes
from mmcast.datasets.toy_cityscapes import generate_toy_cityscapes
from mmcast.datasets.toy_nuclei import generate_toy_nuclei
from mmcast.errors import CASTError
from mmcast.models import start_weights
from mmcast.models.checkpoints import read_state_dict, write_state_dict
from .runs import latest_sound_checkpoint, train_run

STREETS = {'source': 'data/toy_cityscapes_source', 'varied': 'data/toy_cityscapes_varied'}
NUCLEI = 'data/toy_nuclei'
NUM_TRAIN, NUM_VAL = 3000, 60


@dataclass(frozen=True)
class Recipe:
    """How one weights file is made: by training with ``configs`` one after the other.

    ``start`` is the file of another recipe to start from, with its queries repeated up to ``num_queries``.
    """
    configs: tuple[str, ...]
    start: str | None = None
    num_queries: int | None = None


RECIPES = {
    'toy_teacher.pth': Recipe(('toy/toy_teacher_source.py', 'toy/toy_teacher_varied.py')),
    'toy_student.pth': Recipe(('toy/toy_student_source.py', )),
    'nuclei_teacher.pth': Recipe(('dsb2018/dsb2018_teacher_source.py', ), 'toy_teacher.pth', 48),
}


def make_toy_weights(config_dir: str, out_dir: str, work_dir: str) -> list[Path]:
    """Draw the data, train every network on it and write the weights in half precision.

    The toy's teacher sees varied street scenes after those of a clear day, the student those of a clear day only; the
    nuclei's teacher goes on from the toy's on drawn microscopy images. That is about two hours on two cores. Called
    again, an interrupted run goes on from its last checkpoint.

    Args:
        config_dir: The folder ``configs``.
        out_dir: Where the files go.
        work_dir: Where the runs keep logs and checkpoints.

    Raises:
        CASTError: If an output exists.
    """
    for name in RECIPES:
        if Path(out_dir, name).exists():
            raise CASTError(f'{Path(out_dir, name)} exists and is not overwritten: move it away or choose another '
                            'folder')
    for domain, root in STREETS.items():
        generate_toy_cityscapes(root, domain=domain, num_train=NUM_TRAIN, num_val=NUM_VAL)
        for split in ('train', 'val'):
            convert_cityscapes(root, split, f'{root}/annotations/instances_{split}.json')
    generate_toy_nuclei(NUCLEI, num_train=NUM_TRAIN, num_val=NUM_VAL)
    written = []
    for name, recipe in RECIPES.items():
        checkpoint = None
        if recipe.start:
            checkpoint = start_weights.prepare(Path(work_dir, 'start'), recipe.num_queries,
                                               teacher=str(Path(out_dir, recipe.start)))['teacher']
        for config_name in recipe.configs:
            config = Config.fromfile(str(Path(config_dir, config_name)))
            config.work_dir = str(Path(work_dir, Path(config_name).stem))
            config.load_from = checkpoint and str(checkpoint)
            checkpoint = train_run(config, latest_sound_checkpoint(Path(config.work_dir))).checkpoint
        written.append(Path(out_dir, name))
        pack_weights(checkpoint, written[-1])
    return written


def pack_weights(checkpoint: str | Path, out_file: str | Path) -> None:
    """Write the network of a ``CASTDetector``'s checkpoint as a plain detector's weights in half precision."""
    part = 'detector.'
    kept: dict[str, Tensor] = {key.removeprefix(part): value.half() if value.is_floating_point() else value
                               for key, value in read_state_dict(checkpoint).items() if key.startswith(part)}
    write_state_dict(out_file, kept)
