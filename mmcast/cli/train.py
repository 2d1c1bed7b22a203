"""Trains one config, or runs every step of a pipeline config (one that has ``steps``).

Steps that are finished are not run again, and an interrupted one resumes.
"""

import argparse
import gc
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mmcast.cli.errors import reporting_errors_anew
from mmcast.cli.options import (
    add_base_weights,
    add_config_options,
    add_launcher,
    add_processes,
    set_local_rank,
)
from mmcast.errors import CASTError

EXAMPLES = {
    'the whole method on synthetic street scenes, about 10 minutes without a GPU': (
        '{command} cast_toy.py'
    ),
    'the same, on two processes': '{command} cast_toy.py --processes 2',
    'one step again; its old folder is moved aside': (
        '{command} cast_toy.py --step transfer --rerun transfer'
    ),
    'on custom data: a COCO JSON, and a folder of images or a COCO JSON without labels': (
        '{command} cast_custom.py --cfg-options variables.data_root=data/toy_cityscapes '
        'variables.labeled=annotations/labeled_10percent_seed0.json '
        'variables.unlabeled=annotations/unlabeled_10percent_seed0.json'
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'config', help='a config of one run, or a pipeline config: a path, or one of mmcast'
    )
    parser.add_argument(
        '--work-dir', help='where everything is written; default work_dirs/<config name>'
    )
    parser.add_argument('--step', nargs='+', metavar='NAME', help='pipeline: run only these steps')
    parser.add_argument(
        '--rerun',
        nargs='+',
        default=[],
        metavar='NAME',
        help='pipeline: run these steps again ("all" for all); old folders are moved aside',
    )
    parser.add_argument(
        '--resume',
        action='store_true',
        help='one run: resume from its latest checkpoint (a pipeline always does)',
    )
    parser.add_argument('--seed', type=int, help='random seed; default: what the config says')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    add_config_options(
        parser,
        'train_cfg.max_iters=100; in a pipeline config variables.data_root=... or '
        'step_options.KEY=...',
    )
    add_base_weights(parser)
    add_launcher(parser)
    add_processes(parser)


def run(args: argparse.Namespace) -> None:
    settings = dict(
        work_dir=args.work_dir,
        step=args.step,
        rerun=args.rerun,
        resume=args.resume,
        seed=args.seed,
        amp=args.amp,
        cfg_options=args.cfg_options,
    )
    set_local_rank(args)
    if args.processes == 1:
        _import_all(args.config)
        train(args.config, launcher=args.launcher, **settings)
    elif args.launcher != 'none':
        raise CASTError('--processes starts processes, --launcher says what has: give one of them')
    else:
        _train_in_processes(args.processes, args.config, settings, args.debug)


def _train_in_processes(number: int | str, config: str, settings: dict, debug: bool) -> None:
    os.environ.setdefault('OMP_NUM_THREADS', '1')  # of each process, read by torch
    _import_all(config)  # once for all
    import torch

    from mmcast.training.distributed import run_processes

    if number == 'auto':
        number = 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)
    if number == 1:
        train(config, **settings)
    else:
        run_processes(number, partial(_train_as_rank, config, settings, debug))


def _train_as_rank(config: str, settings: dict, debug: bool) -> None:
    with reporting_errors_anew(debug):
        train(config, launcher='pytorch', **settings)


def _import_all(config: str) -> None:
    """What every training needs, told to Python as what stays: MMEngine collects garbage for each
    data set, and would look through all of it again.
    """
    from mmcast.configs import load_config

    load_config(config)  # first, as a wrong path need not wait for torch
    import mmcast.pipeline.pipeline
    import mmcast.pipeline.steps
    import mmcast.training.single  # noqa: F401

    if not gc.get_freeze_count():  # a second time would keep the garbage of an earlier run
        gc.freeze()


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
    from mmcast.configs import load_config

    cfg = load_config(config_path)  # first, as a wrong path need not wait for torch
    from mmcast.pipeline.pipeline import run_pipeline
    from mmcast.pipeline.state import STATE_FILE
    from mmcast.reports.run import write_reports
    from mmcast.training.distributed import on_main
    from mmcast.training.runner import use_amp
    from mmcast.training.single import prepare_single, train_single

    if 'steps' in cfg:
        finished = run_pipeline(
            cfg.filename, work_dir, step, rerun, cfg_options, launcher, seed, amp
        )
        on_main(lambda: write_reports(finished))
        return
    if step or rerun:
        raise CASTError(f'{config_path} has no steps; --step and --rerun are for pipeline configs')
    cfg = prepare_single(cfg, work_dir, cfg_options, launcher)
    work_dir = Path(cfg.work_dir).absolute()
    if any((folder / STATE_FILE).exists() for folder in (work_dir, work_dir.parent)):
        raise CASTError(f'{cfg.work_dir} belongs to a pipeline; choose another --work-dir')
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
    if amp:
        use_amp(cfg)
    # ``resume=True`` of a config, with ``load_from``, resumes from that file instead.
    resume = resume or bool(cfg.get('resume') and not cfg.get('load_from'))
    train_single(cfg, Path(cfg.filename).name, resume)
