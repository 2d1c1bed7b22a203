"""The committed recipe of the toy's pretrained weights: a foundation teacher and a pretrained student."""
import io
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor

from mmcast.datasets.cityscapes import convert_cityscapes
from mmcast.datasets.toy_cityscapes import generate_toy_cityscapes
from mmcast.errors import CASTError
from mmcast.files import write_atomically
from mmcast.models.checkpoints import read_state_dict
from .runs import latest_sound_checkpoint, train_run

#: File to make and config that trains it.
RECIPES = {'toy_teacher.pth': 'toy_teacher_source.py', 'toy_student.pth': 'toy_student_source.py'}
SOURCE_ROOT = 'data/toy_cityscapes_source'
NUM_TRAIN, NUM_VAL = 3000, 60


def make_toy_weights(config_dir: str, out_dir: str, work_dir: str) -> list[Path]:
    """Draw the source domain, train both networks on it and write their weights in half precision.

    That is about an hour on two cores. Called again, an interrupted run goes on from its last checkpoint.

    Args:
        config_dir: The folder ``configs/toy``.
        out_dir: Where the two files go.
        work_dir: Where the runs keep logs and checkpoints.

    Raises:
        CASTError: If an output exists.
    """
    for name in RECIPES:
        if Path(out_dir, name).exists():
            raise CASTError(f'{Path(out_dir, name)} exists and is not overwritten: move it away or choose another '
                            'folder')
    generate_toy_cityscapes(SOURCE_ROOT, domain='source', num_train=NUM_TRAIN, num_val=NUM_VAL)
    for split in ('train', 'val'):
        convert_cityscapes(SOURCE_ROOT, split, f'{SOURCE_ROOT}/annotations/instances_{split}.json')
    written = []
    for name, config_name in RECIPES.items():
        config = Config.fromfile(str(Path(config_dir, config_name)))
        config.work_dir = str(Path(work_dir, Path(name).stem))
        result = train_run(config, latest_sound_checkpoint(Path(config.work_dir)))
        written.append(Path(out_dir, name))
        pack_weights(result.checkpoint, written[-1])
    return written


def pack_weights(checkpoint: str | Path, out_file: str | Path) -> None:
    """Write the network of a ``CASTDetector``'s checkpoint as a plain detector's weights in half precision."""
    part = 'detector.'
    kept: dict[str, Tensor] = {key.removeprefix(part): value.half() if value.is_floating_point() else value
                               for key, value in read_state_dict(checkpoint).items() if key.startswith(part)}
    buffer = io.BytesIO()
    torch.save(kept, buffer)
    write_atomically(out_file, buffer.getvalue())
