"""The shipped pipelines as command lines, with a few iterations per step."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    'step_options.train_cfg.max_iters=3',
    'step_options.train_cfg.val_interval=3',
    'step_options.default_hooks.checkpoint.interval=1',
]


def torchrun(processes: int) -> list[str]:
    """What comes before a script that is to run on several processes."""
    return [
        *(sys.executable, '-m', 'torch.distributed.run'),
        *('--standalone', f'--nproc_per_node={processes}'),
    ]


def start(config: str, work_dir: Path, *options: str, processes: int = 1) -> subprocess.Popen:
    command = [
        sys.executable,
        'tools/train.py',
        f'configs/{config}',
        '--processes',
        str(processes),
        '--work-dir',
        str(work_dir),
        '--cfg-options',
        *SHORT,
        *options,
    ]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def records(work_dir: Path) -> dict:
    path = work_dir / 'pipeline.json'
    return json.loads(path.read_text())['steps'] if path.exists() else {}
