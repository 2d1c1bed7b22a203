"""Run as a program: what everybody does with mmcast, where Python has only what it has on Windows.

Arguments: an empty folder, and an ONNX file of the toy's student.
"""

import os
import signal
import sys
import warnings

# These ask which system this is, and then take its modules for granted.
import psutil  # noqa: F401
import torch  # noqa: F401

for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'):
    sys.modules[name] = None  # importing it raises ModuleNotFoundError
for name in ('fork', 'forkpty', 'register_at_fork', 'sched_getaffinity', 'sysconf', 'killpg'):
    delattr(os, name)
del signal.SIGKILL
# Windows' own encoding is not that of our files.
warnings.filterwarnings('error', category=EncodingWarning, module='mmcast')

import pkgutil  # noqa: E402
from importlib import import_module  # noqa: E402
from pathlib import Path  # noqa: E402
from unittest import mock  # noqa: E402

import mmcast  # noqa: E402

TRAINING = """
_base_ = 'mmcast::toy/toy_student_source.py'
data_root = {root!r}
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,
                        dataset=dict(data_root=data_root, ann_file={labeled!r}))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={val!r})
test_evaluator = val_evaluator
train_cfg = dict(max_iters=2, val_interval=2)
"""


def import_everything() -> None:
    for module in pkgutil.walk_packages(mmcast.__path__, 'mmcast.'):
        import_module(module.name)


def make_data(folder: Path) -> dict:
    from mmcast.toy.cityscapes import prepare_toy_cityscapes

    root = folder / 'data'
    files = prepare_toy_cityscapes(root, num_train=4, num_val=2, percent=50)
    mmcast.make_split(
        files['train'], root / 'a.json', root / 'b.json', percent=25, seed=1, stratify=False
    )
    report = mmcast.check_dataset(
        files['labeled'], files['train_images'], workers=1, progress=False
    )
    assert not report.problems, report
    return dict(files, root=str(root))


def train(folder: Path, files: dict) -> None:
    config = folder / 'own.py'
    config.write_text(TRAINING.format(**files), encoding='utf-8')
    with mock.patch('platform.system', return_value='Windows'):  # MMEngine asks
        mmcast.train(str(config), work_dir=str(folder / 'work'))
    assert (folder / 'work' / 'iter_2.pth').is_file()


def label(folder: Path, files: dict) -> None:
    teacher = Path(__file__).parents[2] / 'configs/toy/weights/toy_teacher.pth'
    done = mmcast.generate_pseudo_labels(
        'mmcast::toy/toy_teacher_adapt_labeled.py',
        teacher,
        folder / 'labels.json',
        ann_file=files['unlabeled'],
        img_dir=files['train_images'],
        limit=2,
        num_workers=0,
    )
    assert done['images'] == 2 and done['instances'] > 0
    assert [path.name for path in folder.glob('labels.json*')] == ['labels.json']


def predict(folder: Path, files: dict, onnx_file: str) -> None:
    student = mmcast.load_student(onnx_file)
    assert mmcast.predict(student, files['val_images'], folder / 'predictions').pictures == 2


def lock_twice(folder: Path) -> None:
    from mmcast.errors import CASTError
    from mmcast.locks import hold_lock

    with hold_lock(folder / '.lock', 'taken by {owner}'):
        try:
            with hold_lock(folder / '.lock', 'taken by {owner}'):
                raise AssertionError('two hold one lock')
        except CASTError as error:
            assert str(error) == f'taken by {os.getpid()}', error
    with hold_lock(folder / '.lock', ''):
        pass


if __name__ == '__main__':
    folder, onnx_file = Path(sys.argv[1]), sys.argv[2]
    import_everything()
    lock_twice(folder)
    files = make_data(folder)
    train(folder, files)
    label(folder, files)
    predict(folder, files, onnx_file)
    print('all of it')
