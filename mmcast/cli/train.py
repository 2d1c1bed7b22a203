"""Trains one config, or runs every step of a pipeline config (one that has ``steps``)."""

from collections.abc import Sequence
from pathlib import Path

from mmcast.configs import load_config
from mmcast.errors import CASTError
from mmcast.pipeline.pipeline import run_pipeline
from mmcast.pipeline.state import STATE_FILE
from mmcast.reports.run import write_reports
from mmcast.training.distributed import on_main
from mmcast.training.runner import use_amp
from mmcast.training.single import prepare_single, train_single


def train(
    config_path: str,
    work_dir: str | None = None,
    step: str | Sequence[str] | None = None,
    rerun: Sequence[str] = (),
    resume: bool = False,
    seed: int | None = None,
    amp: bool = False,
    cfg_options: dict | None = None,
    launcher: str = 'none',
) -> None:
    """What ``mmcast train`` does: a config with ``steps`` is a pipeline, any other one a single
    MMEngine run.

    Args:
        config_path: a path, or the name of a config shipped with mmcast.
        work_dir: where everything is written; default ``work_dirs/<config name>``.
        step: the steps of a pipeline to run; default all.
        rerun: the steps of a pipeline to run again.
        resume: a single run continues from its latest checkpoint; a pipeline always does.
        seed: random seed, instead of the config's.
        amp: mixed precision.
        cfg_options: settings that replace the config's, dotted key -> value.
        launcher: how the processes were started: none, pytorch, slurm or mpi.

    Raises:
        CASTError: see ``run_pipeline``; for a single run, a work directory that holds another one.
    """
    cfg = load_config(config_path)
    if 'steps' in cfg:
        run = run_pipeline(cfg.filename, work_dir, step, rerun, cfg_options, launcher, seed, amp)
        on_main(lambda: write_reports(run))
        return
    if step or rerun:
        raise CASTError(f'{config_path} has no steps; --step and --rerun are for pipeline configs')
    cfg = prepare_single(cfg, work_dir, cfg_options, launcher)
    if (Path(cfg.work_dir) / STATE_FILE).exists():
        raise CASTError(f'{cfg.work_dir} belongs to a pipeline; choose another --work-dir')
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
    if amp:
        use_amp(cfg)
    train_single(cfg, Path(cfg.filename).name, resume)
