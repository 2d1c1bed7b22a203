"""The checkpoints that a run leaves."""

import math
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmcast.errors import CASTError
from mmcast.files import move_aside, write_atomically
from mmcast.models.weights.reading import read_state_dict
from mmcast.training.distributed import on_main, say

CLAIM = 'checkpoints_elsewhere.txt'  # in the folder of a step: where its checkpoints are
OWNER = 'step_folder.txt'  # where these are: the folder of the step
_LAST = 'last_checkpoint'  # MMEngine's text file with the path of the newest one


def checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    """The run's first ``CheckpointHook``."""
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)


def hook_options(cfg: Config) -> dict:
    """What a config gives its ``CheckpointHook``; empty where it has none."""
    return cfg.get('default_hooks', {}).get('checkpoint') or {}


def checkpoint_folder(cfg: Config, work_dir: Path) -> Path:
    """Where a run's ``CheckpointHook`` writes: the work directory, or below its ``out_dir``."""
    out_dir = hook_options(cfg).get('out_dir')
    return work_dir if out_dir is None else Path(out_dir, work_dir.absolute().name)


def holds_run(*folders: Path) -> bool:
    """Whether a training run left checkpoints in one of these folders."""
    return any((folder / _LAST).exists() or _numbered(folder) for folder in folders)


def latest_intact_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run that can be read; a damaged one is passed over with a warning.

    The files themselves are looked at: MMEngine's ``last_checkpoint`` is written after the
    checkpoint, and may be of the one before, or empty.
    """
    numbered = _numbered(folder)
    for path in numbered:
        try:
            read_state_dict(path, with_base=False)
        except CASTError as error:
            say(f'warning: {error}; trying the one before')
        else:
            return path
    if numbered:
        say(f'warning: no checkpoint in {folder} can be read; starting anew')
    return None


def resumable_checkpoint(cfg: Config, work_dir: Path) -> Path | None:
    """The newest intact checkpoint of a step of a pipeline, for all processes.

    In ``out_dir`` a folder of checkpoints has the name of the step alone. So the step's own folder
    names it, and it names that: another run may have none there yet.

    Raises:
        CASTError: the folder is another run's.
    """
    folder = checkpoint_folder(cfg, work_dir)

    def claim() -> None:
        if folder == work_dir:
            return
        owner = _other_owner(folder, work_dir)
        if owner or (holds_run(folder) and not owns(work_dir, folder)):
            raise CASTError(
                f'{folder} is for the checkpoints of {owner or "another run"}: give another '
                'default_hooks.checkpoint.out_dir, or move it away'
            )
        for place, other in ((folder / OWNER, work_dir), (work_dir / CLAIM, folder)):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, f'{other.absolute()}\n')

    on_main(claim)
    return latest_intact_checkpoint(folder)


def owns(work_dir: Path, folder: Path) -> bool:
    """Whether checkpoints in ``folder`` are those of the step in ``work_dir``."""
    return folder == work_dir or _named_in(work_dir / CLAIM) == folder.absolute()


def move_elsewhere_aside(step_folder: Path) -> dict[Path, Path]:
    """Renames the folders of a step's checkpoints that are elsewhere, those of its folds too.

    Returns:
        What they were called -> what they are called now.
    """
    moved = {}
    for claim in (*step_folder.glob(CLAIM), *sorted(step_folder.glob(f'*/{CLAIM}'))):
        folder = _named_in(claim)
        if folder and not _other_owner(folder, claim.parent) and (backup := move_aside(folder)):
            moved[folder] = backup
    return moved


def _other_owner(folder: Path, work_dir: Path) -> Path | None:
    """The step, in another folder that is still there, that a folder of checkpoints is for. One
    that is gone may have been moved to here.
    """
    owner = _named_in(folder / OWNER)
    return owner if owner and owner != work_dir.absolute() and owner.exists() else None


def _named_in(path: Path) -> Path | None:
    """The folder that a file names, None without that file."""
    return Path(path.read_text(encoding='utf-8').rstrip('\n')) if path.exists() else None


def last_checkpoint(runner: Runner) -> Path:
    """The checkpoint of the iteration that a run has reached, or the newest that its settings keep.

    MMEngine's ``last_checkpoint`` is made to say the same.

    Raises:
        CASTError: the run saved none.
    """
    hook = checkpoint_hook(runner)
    if hook is None:
        raise CASTError(
            f'the run in {runner.work_dir} saved no checkpoint: give default_hooks a checkpoint, '
            "dict(type='CheckpointHook', by_epoch=False)"
        )
    path = reached_checkpoint(runner, hook)
    if not path.exists():  # save_last=False
        newest = _numbered(Path(hook.out_dir))
        if not newest:
            raise CASTError(
                f'{hook.out_dir} holds no checkpoint of the run: give '
                'default_hooks.checkpoint.interval, or save_last=True'
            )
        say(f'warning: no checkpoint of the end was saved; the newest is {newest[0]}')
        path = newest[0]
    if is_main_process():
        write_atomically(Path(runner.work_dir, _LAST), str(path))
    return path


def reached_checkpoint(runner: Runner, hook: CheckpointHook) -> Path:
    """Where a hook writes the checkpoint of the iteration or epoch that a run has reached."""
    reached = runner.epoch if hook.by_epoch else runner.iter
    return Path(hook.out_dir, hook.filename_tmpl.format(reached))


def part_of(filename: str) -> str:
    """What a checkpoint is called until it is whole."""
    return f'.{filename}.part'


def remove_parts(folder: Path) -> None:
    """Deletes what a killed run had written of a checkpoint."""
    if is_main_process():
        for path in folder.glob(part_of('*.pth')):
            path.unlink(missing_ok=True)


def check_filenames(options: dict) -> None:
    """Raises CASTError for names of checkpoints that nobody who resumes would find."""
    names = options.get('filename_tmpl')
    if names not in (None, 'iter_{}.pth', 'epoch_{}.pth'):
        raise CASTError(
            f'default_hooks.checkpoint.filename_tmpl is {names!r}: a run is resumed from '
            'iter_{}.pth or epoch_{}.pth; leave it out'
        )


def save_between_steps(cfg: Config) -> None:
    """Rounds the interval of checkpoints up, in place, to whole steps of an optimizer that
    accumulates: one in between lacks the gradients so far, and a resumed run would be another.
    """
    options, counts = hook_options(cfg), _accumulated(cfg)
    if options.get('by_epoch', True) or counts < 2:
        return  # by epochs, see save_between_epochs
    interval, begin = options.get('interval', -1), options.get('save_begin', 0)
    options.update(interval=_round_up(interval, counts), save_begin=_round_up(begin, counts))
    _say_rounded(interval, options['interval'], 'iterations', counts)


def save_between_epochs(runner: Runner) -> None:
    """The same where checkpoints are saved by epochs: how long one is the images decide."""
    hook, counts = checkpoint_hook(runner), _accumulated(runner.cfg)
    if hook is None or not hook.by_epoch or counts < 2:
        return
    epochs = counts // math.gcd(counts, len(runner.train_loop.dataloader))
    interval = hook.interval
    hook.interval = _round_up(interval, epochs)
    hook.save_begin = _round_up(hook.save_begin, epochs)
    _say_rounded(interval, hook.interval, 'epochs', counts)


def _accumulated(cfg: Config) -> int:
    """So many iterations are a step of the optimizer."""
    return (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)


def _round_up(number: int, step: int) -> int:
    """To a multiple; MMEngine's -1, never, stays."""
    return -(-number // step) * step if number > 0 else number


def _say_rounded(old: int, new: int, unit: str, counts: int) -> None:
    if new != old:
        say(
            f'checkpoints are saved every {new} {unit} in place of {old}: after whole steps of the '
            f'optimizer, which are {counts} iterations each'
        )


def keep_two(cfg: Config) -> bool:
    """Makes ``max_keep_ckpts=1`` 2, and says whether it did; :func:`keep_only` makes one of them.

    MMEngine deletes the old checkpoint before it writes the new one: a run that keeps one and is
    killed in between would have lost everything.
    """
    options = hook_options(cfg)
    if options.get('max_keep_ckpts') != 1:
        return False
    options['max_keep_ckpts'] = 2
    return True


def keep_only(checkpoint: Path) -> None:
    """Deletes the other numbered checkpoints of its folder."""
    if is_main_process():
        for path in _numbered(checkpoint.parent):
            if path != checkpoint:
                path.unlink()


def _numbered(folder: Path) -> list[Path]:
    """Checkpoints by iteration or epoch, newest first."""
    numbered = [
        (int(match[1]), path)
        for path in folder.glob('*.pth')
        if (match := re.fullmatch(r'(?:iter|epoch)_(\d+)', path.stem))
    ]
    return [path for _, path in sorted(numbered, reverse=True)]
