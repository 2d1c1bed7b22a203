"""Trains one config, or runs every step of a pipeline config (one that has ``steps``)."""

import argparse
import os

from mmengine.config import DictAction

from mmcast.cli.errors import report_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a config of one run, or a pipeline config')
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
        help='one run: go on from its latest checkpoint (a pipeline always does)',
    )
    parser.add_argument('--seed', type=int, help='random seed; default: what the config says')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings to override, such as train_cfg.max_iters=100; in a pipeline config '
        'variables.data_root=... or step_options.KEY=...',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by the launcher'
    )
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


@report_errors
def main() -> None:
    args = parse_args()
    from mmcast.cli.train import train  # here, so that --help does not wait for torch

    train(
        args.config,
        work_dir=args.work_dir,
        step=args.step,
        rerun=args.rerun,
        resume=args.resume,
        seed=args.seed,
        amp=args.amp,
        cfg_options=args.cfg_options,
        launcher=args.launcher,
    )


if __name__ == '__main__':
    main()
