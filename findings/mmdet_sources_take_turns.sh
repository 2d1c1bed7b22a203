#!/usr/bin/env bash
# onedl-mmdetection 3.4.5 (mmdet 3.3.0 alike): the samplers of labeled and unlabeled images (`MultiSourceSampler`, and the
# one that groups by orientation, as SoftTeacher's configs have it) keep a batch size of their own beside the loader's.
# Where only `train_dataloader.batch_size` is made smaller, as one does when a GPU runs out of memory, nothing fails, and
# batches no longer hold what `source_ratio` says: with 4 in the sampler and 2 in the loader, batches of labeled and of
# unlabeled images alone take turns. With 1 labeled to 4 unlabeled and 5 in the sampler, a loader of 2 gives a batch
# without a labeled image in most of its steps, whose supervised losses are then empty.
# The script counts the images of each source in the batches of torch's loader. Installs torch (several GB). Exits with
# 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 \
    onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmdetection==3.4.5 faster-coco-eval==1.8.0 pycocotools==2.0.11 \
    cityscapesscripts==2.3.0 numpy==2.2.6 opencv-python-headless==4.12.0.88
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import types


class Operators(types.ModuleType):
    """Stands for mmcv's compiled operators, none of which is called here."""

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


sys.modules['mmcv._ext'] = Operators('mmcv._ext')
from itertools import islice

from mmdet.datasets.samplers import MultiSourceSampler
from mmengine.dataset import BaseDataset, ConcatDataset
from torch.utils.data import DataLoader


class Source(BaseDataset):
    def __init__(self, letter):
        self.letter = letter
        super().__init__(serialize_data=False)

    def load_data_list(self):
        return [dict(number=number) for number in range(20)]

    def __getitem__(self, index):
        return self.letter


both = ConcatDataset([Source('L'), Source('U')])


def batches(in_sampler, in_loader, ratio):
    sampler = MultiSourceSampler(both, batch_size=in_sampler, source_ratio=ratio, seed=0)
    loader = DataLoader(both, batch_size=in_loader, sampler=sampler, collate_fn=''.join)
    found = list(islice(loader, 10))
    print(f'sampler {in_sampler}, loader {in_loader}, ratio {ratio}: {" ".join(found)}')
    return found


even = batches(4, 4, [1, 1])
turns = batches(4, 2, [1, 1])
without = sum('L' not in batch for batch in batches(5, 2, [1, 4]))
print(f'{without} of 10 batches without a labeled image')
same = set(even) == {'LLUU'} and turns == ['LL', 'UU'] * 5 and without > 5
sys.exit(0 if same else 1)
PYTHON
