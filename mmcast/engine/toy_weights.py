"""The committed recipe of the toy's pretrained weights: a foundation teacher and a pretrained student."""
from pathlib import Path

from mmengine.config import Config
from torch import Tensor

from mmcast.datasets.cityscapes import convert_cityscapes
from mmcast.datasets.toy_cityscapes import generate_toy_cityscapes
from mmcast.errors import CASTError
from mmcast.models.checkpoints import read_state_dict, write_state_dict
from .runs import latest_sound_checkpoint, train_run

#: File to make and the configs that train it, one after the other.
RECIPES = {'toy_teacher.pth': ('toy_teacher_source.py', 'toy_teacher_varied.py'),
           'toy_student.pth': ('toy_student_source.py', )}
DATA_ROOTS = {'source': 'data/toy_cityscapes_source', 'varied': 'data/toy_cityscapes_varied'}
NUM_TRAIN, NUM_VAL = 3000, 60


def make_toy_weights(config_dir: str, out_dir: str, work_dir: str) -> list[Path]:
    """Draw the data, train both networks on it and write their weights in half precision.

    The teacher sees varied scenes after those of a clear day, the student those of a clear day only. That is about
    an hour and a half on two cores. Called again, an interrupted run goes on from its last checkpoint.

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
    for domain, root in DATA_ROOTS.items():
        generate_toy_cityscapes(root, domain=domain, num_train=NUM_TRAIN, num_val=NUM_VAL)
        for split in ('train', 'val'):
            convert_cityscapes(root, split, f'{root}/annotations/instances_{split}.json')
    written = []
    for name, config_names in RECIPES.items():
        checkpoint = None
        for config_name in config_names:
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
