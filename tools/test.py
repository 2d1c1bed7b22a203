"""Tests a checkpoint on the test set of its config and prints the metrics (mask AP and others, 0 to
1).
"""

import argparse
import os

from mmengine.config import DictAction

from mmcast.cli.errors import report_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a config of one run')
    parser.add_argument('checkpoint', help='weights of the whole model')
    parser.add_argument(
        '--work-dir', help='where logs are written; default work_dirs/<config name>'
    )
    parser.add_argument(
        '--out',
        help="file to write, which must not exist: .json gets the metrics, .pkl mmdet's pickle of "
        'the predictions',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings to override, such as test_dataloader.batch_size=1',
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
    from mmcast.cli.test import test  # here, so that --help does not wait for torch

    test(
        args.config,
        args.checkpoint,
        work_dir=args.work_dir,
        out=args.out,
        cfg_options=args.cfg_options,
        launcher=args.launcher,
    )


if __name__ == '__main__':
    main()
