#!/usr/bin/env bash
# onedl-mmengine 0.10.12 (mmengine 0.10.7 alike): in an EpochBasedTrainLoop with num_workers > 0 and the default
# persistent_workers=False, all random numbers that transforms draw are the same in every epoch. Runner gives each
# loader a worker_init_fn that seeds random, numpy and torch with `num_workers * rank + worker_id + seed`; the workers
# of every epoch are new processes and begin there again. The order of the images does change, so each epoch has the
# same crops, flips and colours, on other images; losses look as usual. torch's own DataLoader would give workers
# another seed in each epoch. Below, a data set draws a number for each of its four images, over three epochs.
# Installs torch (several GB). Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 onedl-mmengine==0.10.12 \
    numpy==2.2.6 opencv-python-headless==4.12.0.88
cat > "$folder/epochs.py" <<'PYTHON'
import sys

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner

epochs = []


class Crops(torch.utils.data.Dataset):
    """The left edge of a random crop of each of four images."""

    metainfo = {}

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor(np.random.randint(1000))


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, edges, mode):
        epochs[-1] += edges.tolist()
        return dict(loss=self.weight * 0)


class NewEpoch(Hook):
    def before_train_epoch(self, runner):
        epochs.append([])


def collate(batch):
    return dict(edges=torch.stack(batch))


Runner(
    Model(),
    sys.argv[1],
    train_dataloader=dict(
        dataset=Crops(),
        sampler=dict(type='DefaultSampler', shuffle=True),
        batch_size=2,
        num_workers=1,
        collate_fn=collate,
    ),
    train_cfg=dict(by_epoch=True, max_epochs=3),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
    custom_hooks=[NewEpoch()],
    log_level='ERROR',
).train()
print('left edges of the crops in three epochs:', epochs)
if len(epochs) != 3 or epochs[0] != epochs[1] or epochs[1] != epochs[2]:
    sys.exit('changed: epochs draw different numbers')
PYTHON
"$folder/venv/bin/python" "$folder/epochs.py" "$folder/run" 2>/dev/null
