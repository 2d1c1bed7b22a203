"""Makes the shipped weights again, from synthetic street scenes and nuclei (about four hours on two
cores).

For those who develop mmcast; interrupted, the same command resumes.
"""

import argparse

EXAMPLES = {'all of them': '{command} --out-dir new_weights'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--config-dir', default='configs', help='the folder of the configs')
    parser.add_argument('--out-dir', default='work_dirs/toy_weights', help='where the files go')
    parser.add_argument(
        '--work-dir', default='work_dirs/toy_weights', help='logs and checkpoints of the runs'
    )


def run(args: argparse.Namespace) -> None:
    from mmcast.toy.weights import make_toy_weights

    for path in make_toy_weights(args.config_dir, args.out_dir, args.work_dir):
        print(path)
