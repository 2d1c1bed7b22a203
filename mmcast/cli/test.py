"""Tests a checkpoint on the test set of its config and prints the metrics (mask AP and others, 0 to
1).
"""

from mmcast.configs import load_config
from mmcast.training.single import prepare_single, test_single


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
    test_single(
        prepare_single(load_config(config_path), work_dir, cfg_options, launcher), checkpoint, out
    )
