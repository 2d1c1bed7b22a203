"""The shipped toy student has one AP, whichever distributions of OpenMMLab are installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmcast.toy.cityscapes import prepare_toy_cityscapes

ROOT = Path(__file__).resolve().parent.parent
TEST = """
_base_ = 'mmcast::toy/toy_student_source.py'
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root={root!r}))
test_evaluator = dict(ann_file={val!r})
"""


def test_ap_of_the_shipped_student(tmp_path):
    files = prepare_toy_cityscapes(
        tmp_path / 'data', domain='source', num_train=4, num_val=12, percent=50
    )
    config = tmp_path / 'own.py'
    config.write_text(TEST.format(root=str(tmp_path / 'data'), **files), encoding='utf-8')
    weights = ROOT / 'configs/toy/weights/toy_student.pth'
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / 'tools/test.py'), str(config), str(weights)),
            *('--work-dir', str(tmp_path / 'work'), '--out', str(tmp_path / 'metrics.json')),
        ],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads((tmp_path / 'metrics.json').read_text(encoding='utf-8'))['metrics']
    found = [metrics[f'coco/segm_mAP{suffix}'] for suffix in ('', '_50', '_75')]
    assert found == pytest.approx([0.369, 0.605, 0.364], abs=2e-3)
