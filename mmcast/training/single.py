"""One MMEngine run of one config: training and testing, with the checks that a person who types a
command needs.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from mmcast.data.config_data import check_config_data
from mmcast.errors import CASTError
from mmcast.files import write_atomically
from mmcast.locks import hold_work_dir
from mmcast.training.checkpoints import checkpoint_folder, holds_run, latest_intact_checkpoint
from mmcast.training.distributed import on_main, say, start_distributed
from mmcast.training.overrides import override
from mmcast.training.runner import test_run, train_run


def train_single(cfg: Config, name: str, resume: bool = False) -> None:
    """Trains a config that :func:`prepare_single` made ready.

    Args:
        cfg: with ``work_dir``.
        name: of the config's file.
        resume: continue from the latest checkpoint in the work directory.

    Raises:
        CASTError: the work directory is in use or holds another run, or the data do not fit.
    """
    with _held(Path(cfg.work_dir)):
        _check_work_dir(cfg, name, resume)
        check_config_data(cfg, ('train_dataloader', 'val_dataloader'))
        folder = checkpoint_folder(cfg, Path(cfg.work_dir))
        result = train_run(cfg, latest_intact_checkpoint(folder) if resume else None)
    say(f'checkpoint: {result.checkpoint}')


def test_single(cfg: Config, checkpoint: str, out: str | None = None) -> None:
    """Prints a checkpoint's metrics on the test set.

    Args:
        cfg: what :func:`prepare_single` made ready.
        checkpoint: weights of the whole model.
        out: a file to write, by its ending: ``.json`` for the metrics, ``.pkl`` or ``.pickle`` for
            the predictions as mmdet's tools read them.

    Raises:
        CASTError: ``out`` exists or has another ending, the work directory is in use, or the
            checkpoint is not one of this model.
    """
    kind = _check_out(out)
    with _held(Path(cfg.work_dir)):
        check_config_data(cfg, ('test_dataloader',))
        result = test_run(cfg, checkpoint, Path(out) if kind == 'predictions' else None)
    for key, value in result.metrics.items():
        say(f'{key}: {value:.4f}')
    if kind == 'metrics':
        content = dict(
            config=cfg.filename,
            checkpoint=checkpoint,
            metrics=result.metrics,
            parameters=result.parameters,
        )
        write_atomically(Path(out), json.dumps(content, indent=1))


def prepare_single(
    cfg: Config, work_dir: str | None, cfg_options: dict | None, launcher: str
) -> Config:
    """Puts what a command line says into a config, and joins the process group.

    Raises:
        CASTError: nothing reads an option.
    """
    override(cfg, cfg_options, f'config {cfg.filename}')
    cfg.work_dir = (
        work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(cfg.filename).stem))
    )
    cfg.launcher = launcher
    start_distributed(launcher)
    return cfg


@contextlib.contextmanager
def _held(work_dir: Path) -> Iterator[None]:
    """Rank 0 locks a work directory for all."""
    with contextlib.ExitStack() as stack:
        on_main(lambda: stack.enter_context(hold_work_dir(work_dir)))
        yield


def _check_out(out: str | None) -> str | None:
    """What goes into the file of ``--out``: 'metrics', 'predictions' or nothing."""
    if not out:
        return None
    kind = {'.json': 'metrics', '.pkl': 'predictions', '.pickle': 'predictions'}
    if Path(out).suffix not in kind:
        raise CASTError(
            f'--out {out}: give a name that ends in .json, for the metrics, or in .pkl, for the '
            'predictions'
        )
    if Path(out).exists():
        raise CASTError(f'{out} exists and is not overwritten; move it away or give another --out')
    return kind[Path(out).suffix]


def _check_work_dir(cfg: Config, name: str, resume: bool) -> None:
    """A run must not write over another one's checkpoints."""
    work_dir = Path(cfg.work_dir)
    if not holds_run(work_dir, checkpoint_folder(cfg, work_dir)):
        return
    if not resume:
        raise CASTError(
            f'{work_dir} holds checkpoints of an earlier run; --resume continues it, or choose '
            'another --work-dir'
        )
    if not (work_dir / name).exists():  # MMEngine keeps a copy of a run's config there
        raise CASTError(
            f'{work_dir} holds a run of another config than {name}; choose another --work-dir'
        )
