"""Tests a checkpoint on the test set of its config and prints the metrics (mask AP and others, 0 to
1).
"""

import argparse

from mmcast.cli.options import add_base_weights, add_config_options, add_launcher, set_local_rank

EXAMPLES = {
    'the student that cast_toy.py trained': (
        '{command} toy/toy_student_refine.py work_dirs/cast_toy/08_refine/iter_100.pth'
    ),
    'and keep the metrics': (
        '{command} toy/toy_student_refine.py work_dirs/cast_toy/08_refine/iter_100.pth '
        '--out metrics.json'
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='a config of one run: a path, or one of mmcast')
    parser.add_argument('checkpoint', help='weights of the whole model')
    parser.add_argument(
        '--work-dir', help='where logs are written; default work_dirs/<config name>'
    )
    parser.add_argument(
        '--out',
        help="file to write, which must not exist: .json gets the metrics, .pkl mmdet's pickle of "
        'the predictions',
    )
    add_config_options(parser, 'test_dataloader.batch_size=1')
    add_base_weights(parser)
    add_launcher(parser)


def run(args: argparse.Namespace) -> None:
    set_local_rank(args)
    test(
        args.config,
        args.checkpoint,
        work_dir=args.work_dir,
        out=args.out,
        cfg_options=args.cfg_options,
        launcher=args.launcher,
    )


def test(
    config_path: str,
    checkpoint: str,
    work_dir: str | None = None,
    out: str | None = None,
    cfg_options: dict | None = None,
    launcher: str = 'none',
) -> None:
    """What ``mmcast test`` does.

    Args:
        config_path: of one run; a path, or the name of a config shipped with mmcast.
        checkpoint: weights of the whole model.
        work_dir: where logs are written; default ``work_dirs/<config name>``.
        out: a file to write, which must not exist: ``.json`` for the metrics, ``.pkl`` for the
            predictions, which mmdet's tools read (``mmcast mmdet eval_metric`` and others).
        cfg_options: merged into the config.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Raises:
        CASTError: ``out`` exists or has another ending, or the checkpoint is not one of this model.
    """
    from mmcast.configs import load_config

    cfg = load_config(config_path)  # first, as a wrong path need not wait for torch
    from mmcast.training.single import prepare_single, test_single

    test_single(prepare_single(cfg, work_dir, cfg_options, launcher), checkpoint, out)
