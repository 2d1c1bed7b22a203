"""One config on one command: train (a run or a whole pipeline) and test."""
import json
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mmcast.errors import CASTError
from mmcast.files import write_atomically
from .checks import check_config_data
from .distributed import start_distributed
from .pipeline import run_pipeline
from .runs import latest_sound_checkpoint, say, test_run, train_run
from .state import STATE_FILE
from .steps import load_config, use_amp


def train(config_path: str,
          work_dir: str | None = None,
          step: Sequence[str] | None = None,
          rerun: Sequence[str] = (),
          resume: bool = False,
          seed: int | None = None,
          amp: bool = False,
          cfg_options: dict | None = None,
          launcher: str = 'none') -> None:
    """What ``tools/train.py`` does: a config with ``steps`` is a pipeline, any other one MMEngine run.

    Raises:
        CASTError: see ``run_pipeline``; for one run, a work directory that holds another one.
    """
    cfg = load_config(Path(config_path))
    if 'steps' in cfg:
        run_pipeline(config_path, work_dir, step, rerun, cfg_options, launcher, seed, amp)
        return
    if step or rerun:
        raise CASTError(f'{config_path} has no steps; --step and --rerun are for pipeline configs')
    cfg = _prepare(cfg, work_dir, cfg_options, launcher)
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
    if amp:
        use_amp(cfg)
    _check_work_dir(Path(cfg.work_dir), Path(config_path), resume)
    check_config_data(cfg, ('train_dataloader', 'val_dataloader'))
    result = train_run(cfg, latest_sound_checkpoint(Path(cfg.work_dir)) if resume else None)
    say(f'checkpoint: {result.checkpoint}')


def test(config_path: str, checkpoint: str, work_dir: str | None = None, out: str | None = None,
         cfg_options: dict | None = None, launcher: str = 'none') -> None:
    """What ``tools/test.py`` does: prints a checkpoint's metrics on the test set, writes them to ``out``.

    Raises:
        CASTError: ``out`` exists, or the checkpoint is not one of this model.
    """
    if out and Path(out).exists():
        raise CASTError(f'{out} exists and is not overwritten; move it away or give another --out')
    cfg = _prepare(load_config(Path(config_path)), work_dir, cfg_options, launcher)
    check_config_data(cfg, ('test_dataloader',))
    result = test_run(cfg, checkpoint)
    for key, value in result.metrics.items():
        say(f'{key}: {value:.4f}')
    if out:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        content = dict(config=config_path, checkpoint=checkpoint, metrics=result.metrics,
                       parameters=result.parameters)
        write_atomically(Path(out), json.dumps(content, indent=1))


def _prepare(cfg: Config, work_dir: str | None, cfg_options: dict | None, launcher: str) -> Config:
    cfg.merge_from_dict(cfg_options or {})
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(cfg.filename).stem))
    cfg.launcher = launcher
    start_distributed(launcher)
    return cfg


def _check_work_dir(work_dir: Path, config_path: Path, resume: bool) -> None:
    """A run must not write over another one's checkpoints."""
    if (work_dir / STATE_FILE).exists():
        raise CASTError(f'{work_dir} belongs to a pipeline; choose another --work-dir')
    if not (work_dir / 'last_checkpoint').exists():
        return
    if not resume:
        raise CASTError(
            f'{work_dir} holds checkpoints of an earlier run; --resume goes on from them, or choose another '
            '--work-dir')
    if not (work_dir / config_path.name).exists():  # MMEngine keeps a copy of a run's config there
        raise CASTError(
            f'{work_dir} holds a run of another config than {config_path.name}; choose another --work-dir')
