"""Let a teacher label images. Interrupted, the same command goes on where it stopped.

On several processes: torchrun --nproc_per_node=8 tools/pseudo_label.py ... --launcher pytorch
"""

import argparse
import json
import os

from mmengine.config import Config, DictAction

from mmcast.cli.errors import report_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the teacher: its model and test pipeline')
    parser.add_argument('checkpoint', help='weights of the teacher')
    parser.add_argument('--out', required=True, help='COCO JSON to make')
    parser.add_argument(
        '--ann-file', help='COCO JSON that lists the images; default: all of --img-dir'
    )
    parser.add_argument(
        '--img-dir', help='folder of the images; default, without --ann-file: the test set'
    )
    parser.add_argument(
        '--score-floor',
        type=float,
        default=0.05,
        help='store masks with a score above (default 0.05)',
    )
    parser.add_argument(
        '--strict',
        action='store_true',
        help='stop at an image that cannot be read, instead of leaving it out',
    )
    parser.add_argument(
        '--flip', action='store_true', help='let the teacher look at mirrored images too'
    )
    parser.add_argument(
        '--scales',
        type=float,
        nargs='+',
        default=[1.0],
        metavar='FACTOR',
        help='let the teacher look at the images in these sizes (default 1)',
    )
    parser.add_argument(
        '--confidence',
        action='store_true',
        help='store how sure the teacher is of every pixel, to weight the mask loss with',
    )
    parser.add_argument(
        '--num-workers', type=int, help="processes that load images; default: the config's"
    )
    parser.add_argument(
        '--device', help='cpu, cuda, cuda:1 ...; default the accelerator if there is one'
    )
    parser.add_argument('--limit', type=int, help='only the first so many images')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='changes to the config',
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
    from mmcast.pseudo_labels.generate import generate_pseudo_labels
    from mmcast.training.distributed import (
        start_distributed,
    )  # here, so that --help does not wait for torch

    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    start_distributed(args.launcher)
    summary = generate_pseudo_labels(
        cfg,
        args.checkpoint,
        args.out,
        ann_file=args.ann_file,
        img_dir=args.img_dir,
        score_floor=args.score_floor,
        device=args.device,
        limit=args.limit,
        strict=args.strict,
        flip=args.flip,
        scales=args.scales,
        confidence=args.confidence,
        num_workers=args.num_workers,
        distributed=args.launcher != 'none',
    )
    if int(os.environ.get('RANK', 0)):
        return
    print(json.dumps(summary, indent=2))
    if summary['unreadable_images']:
        print(
            f'{summary["unreadable_images"]} images could not be used and have no labels; '
            f'{args.out} names them under "unreadable"'
        )


if __name__ == '__main__':
    main()
