"""Lets a teacher label images: one COCO JSON with every mask above a low score.

Interrupted, the same command resumes.
"""

import argparse
import json
import os

from mmcast.cli.options import add_base_weights, add_config_options, add_launcher, set_local_rank

_TEACHER = (
    'toy/toy_teacher_adapt_self_training.py work_dirs/cast_toy/05_adapt_self_training/iter_200.pth'
)
EXAMPLES = {
    'a folder of images, by the teacher that cast_toy.py adapted': (
        '{command} ' + _TEACHER + ' --img-dir data/toy_cityscapes/leftImg8bit/train '
        '--out pseudo_labels.json'
    ),
    'the same, on two processes': (
        '{torchrun} --nproc_per_node=2 {script} ' + _TEACHER + ' --img-dir '
        'data/toy_cityscapes/leftImg8bit/train --out pseudo_labels.json --launcher pytorch'
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
        '--flip', action='store_true', help='test-time augmentation: mirrored images too'
    )
    parser.add_argument(
        '--scales',
        type=float,
        nargs='+',
        default=[1.0],
        metavar='FACTOR',
        help='test-time augmentation: the images in these sizes (default 1)',
    )
    parser.add_argument(
        '--views-per-batch',
        type=int,
        default=2,
        metavar='NUMBER',
        help='test-time augmentation: most views of one size to predict on at a time (default 2, '
        'the image and the mirrored one); 1: each by itself, as without augmentation',
    )
    parser.add_argument(
        '--confidence',
        action='store_true',
        help="store the teacher's confidence in every pixel, to weight the mask loss with",
    )
    parser.add_argument(
        '--num-workers', type=int, help="processes that load images; default: the config's"
    )
    parser.add_argument(
        '--device', help='cpu, cuda, cuda:1 ...; default the accelerator if there is one'
    )
    parser.add_argument('--limit', type=int, help='only the first so many images')
    add_config_options(parser, 'model.test_cfg.max_per_image=50')
    add_base_weights(parser)
    add_launcher(parser)


def run(args: argparse.Namespace) -> None:
    set_local_rank(args)
    from mmcast.configs import load_config
    from mmcast.devices import check_device
    from mmcast.pseudo_labels.generate import generate_pseudo_labels
    from mmcast.training.distributed import start_distributed
    from mmcast.training.overrides import override

    check_device(args.device)
    cfg = load_config(args.config)
    override(cfg, args.cfg_options, f'config {cfg.filename}')
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
        views_per_batch=args.views_per_batch,
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
