"""Makes the shipped weights again, from drawn street scenes and nuclei (between three and four
hours on two cores).
"""

import argparse

from mmcast.cli.errors import report_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config-dir', default='configs', help='the folder of the configs')
    parser.add_argument('--out-dir', default='work_dirs/toy_weights', help='where the files go')
    parser.add_argument(
        '--work-dir', default='work_dirs/toy_weights', help='logs and checkpoints of the runs'
    )
    return parser.parse_args()


@report_errors
def main() -> None:
    args = parse_args()
    from mmcast.toy.weights import make_toy_weights  # here, so that --help does not wait for torch

    for path in make_toy_weights(args.config_dir, args.out_dir, args.work_dir):
        print(path)


if __name__ == '__main__':
    main()
