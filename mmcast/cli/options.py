"""Arguments that several commands share."""

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmcast.errors import CASTError
from mmcast.files import BASE_WEIGHTS
from mmcast.typed_values import Typed


class ConfigOptions(argparse.Action):
    """``KEY=VALUE ...``; what a value means depends on the setting that it replaces."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str] | Any,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for value in values:
            key, equals, text = value.partition('=')
            if not equals or not all(key.split('.')):
                parser.error(
                    f'{option_string}: {value} is not KEY=VALUE; put quotes around a value with '
                    "spaces: 'KEY=a b'"
                )
            options[key] = Typed(text)
        setattr(namespace, self.dest, options)


def add_config_options(parser: argparse.ArgumentParser, example: str) -> None:
    """Adds ``--cfg-options``.

    Args:
        parser: of the command.
        example: what a person would change.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help=f'settings to override, such as {example}',
    )


class _BaseWeights(argparse.Action):
    """Tells this process, and those that it starts, where base weights are."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if not os.path.exists(str(values)):
            parser.error(f'{option_string}: there is no {values}')
        os.environ[BASE_WEIGHTS] = os.path.abspath(str(values))


def add_base_weights(parser: argparse.ArgumentParser) -> None:
    """Adds ``--base-weights``."""
    parser.add_argument(
        '--base-weights',
        action=_BaseWeights,
        metavar='PATH',
        help='file or folder of the weights that LoRA adapters belong to, where it was moved',
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Adds what a launcher of several processes says."""
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started several processes (default none)',
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by the launcher'
    )


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Adds how many processes the command starts itself."""
    parser.add_argument(
        '--processes',
        type=_processes,
        default=1,
        metavar='NUMBER',
        help='processes of this machine that share every batch (default 1); "auto" is 2 without a '
        'GPU, where that is faster than two threads',
    )


def _processes(text: str) -> int | str:
    if text == 'auto':
        return text
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is no number of processes')
    return number


def set_local_rank(args: argparse.Namespace) -> None:
    """Tells MMEngine the rank that a launcher gave as an argument. From now on, before torch is
    imported, a rank ends with its launcher.
    """
    from mmcast.processes import end_with_torchrun  # here, as --help needs no multiprocessing

    end_with_torchrun()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def add_source(parser: argparse.ArgumentParser, kinds: str) -> None:
    """Adds the weights that an export reads.

    Args:
        parser: of the command.
        kinds: what may be given, in words.
    """
    parser.add_argument('source', nargs='+', help=kinds)
    parser.add_argument(
        '--step', help='of the pipeline; default the last one that trained the student'
    )
    add_base_weights(parser)


def check_source(args: argparse.Namespace) -> None:
    """Ends the call where :func:`add_source` got too much."""
    if len(args.source) > 2:
        args.parser.error('give a work directory, or a config and a checkpoint')


def add_coco_conversion(parser: argparse.ArgumentParser, root: str, splits: str) -> None:
    """Adds the arguments of a converter that writes one COCO file for each split.

    Args:
        parser: of the command.
        root: what the folder holds.
        splits: which there are, in words.
    """
    parser.add_argument('root', type=Path, help=root)
    parser.add_argument(
        '--splits',
        nargs='+',
        default=['train', 'val'],
        choices=['train', 'val'],
        metavar='SPLIT',
        help=splits,
    )
    parser.add_argument(
        '--out-dir', type=Path, help='folder of instances_SPLIT.json (default ROOT/annotations)'
    )
    add_num_workers(parser)
    add_force(parser, 'existing files')


def add_label_filters(
    parser: argparse.ArgumentParser, what: str, thresholds: dict | None = None, note: str = ''
) -> argparse._ArgumentGroup:
    """Adds the thresholds on pseudo-labels.

    Args:
        parser: of the command.
        what: they decide, in words.
        thresholds: How thresholds are read, as arguments of ``add_argument``; a number by default.
        note: Added to the help of the first one.

    Returns:
        The group, for further filters.
    """
    above = thresholds or dict(type=float)
    group = parser.add_argument_group('filters', what)
    group.add_argument(
        '--score-thr',
        default=0.3,
        help=f'those with a score above (default 0.3){note}',
        **above,
    )
    group.add_argument('--class-score-thr', help='and with a class score above', **above)
    group.add_argument('--mask-quality-thr', help='and with a mask quality above', **above)
    group.add_argument(
        '--agreement-thr', help="and with an agreement of the teacher's components above", **above
    )
    group.add_argument('--min-area', type=int, default=0, help='and of so many pixels or more')
    group.add_argument(
        '--min-visible',
        type=float,
        default=0,
        help='and of which better ones leave this fraction of the pixels',
    )
    group.add_argument('--top-k', type=int, help='at most so many per image')
    return group


def add_num_workers(parser: argparse.ArgumentParser) -> None:
    """Adds ``--num-workers`` of a converter."""
    parser.add_argument(
        '--num-workers',
        type=int,
        default=0,
        help='processes that read the masks (default 0: this one)',
    )


def add_force(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds ``--force``."""
    parser.add_argument('--force', action='store_true', help=f'replace {what}')


def check_output_files(
    outputs: Iterable[str | None], inputs: Iterable[str | None] = (), force: bool = False
) -> None:
    """Checks files that a command is going to write: before the work, not after it.

    Raises:
        CASTError: one is an input, or exists and may not be replaced.
    """
    read = {Path(path).resolve() for path in inputs if path}
    for path in filter(None, outputs):
        if Path(path).resolve() in read:
            raise CASTError(f'{path} is an input: name another file for the result')
        if Path(path).exists() and not force:
            raise CASTError(f'{path} exists: delete it, name another file or use --force')
