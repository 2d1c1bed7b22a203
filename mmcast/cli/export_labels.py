"""Writes human annotations and pseudo-labels as one folder that RF-DETR, Ultralytics, lightly-train
and MMDetection train on as it is: COCO (RLE) and YOLO-seg side by side.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmcast.cli.options import add_force, add_label_filters, add_num_workers

_TOY = 'data/toy_cityscapes'
_FILES = (
    f'--labeled {_TOY}/annotations/labeled_10percent_seed0.json '
    f'--labeled-images {_TOY}/leftImg8bit/train '
    '--pseudo-labels work_dirs/cast_toy/06_pseudo_label_2/annotations.json '
    f'--pseudo-images {_TOY}/leftImg8bit/train '
    f'--val {_TOY}/annotations/instances_val.json --val-images {_TOY}/leftImg8bit/val '
)
EXAMPLES = {
    'after mmcast train cast_toy.py': '{command} ' + _FILES + '--out labels',
    'without duplicates, few labels that are not sure': (
        '{command} ' + _FILES + '--score-thr 0.6 --min-visible 0.5 --out labels'
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    train = parser.add_argument_group('label files', 'folders: by default that of the file itself')
    train.add_argument('--labeled', type=Path, metavar='JSON', help='COCO JSON of people')
    train.add_argument('--labeled-images', type=Path, metavar='FOLDER', help='its images')
    train.add_argument('--pseudo-labels', type=Path, metavar='JSON', help='file of mmcast label')
    train.add_argument('--pseudo-images', type=Path, metavar='FOLDER', help='its images')
    train.add_argument(
        '--val', type=Path, metavar='JSON', required=True, help='COCO JSON of validation images'
    )
    train.add_argument('--val-images', type=Path, metavar='FOLDER', help='its images')
    train.add_argument('--test', type=Path, metavar='JSON', help='COCO JSON of test images')
    train.add_argument('--test-images', type=Path, metavar='FOLDER', help='its images')
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER', help='the new folder')
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='in the order of their ids; default those that --labeled has instances of',
    )
    parser.add_argument(
        '--crowd-as-instances',
        action='store_true',
        help='take annotations with iscrowd 1 for single objects',
    )
    parser.add_argument(
        '--value-range',
        metavar='LOW,HIGH',
        help='black and white of images with more than 8 bits, or percentile',
    )
    parser.add_argument(
        '--link',
        default='auto',
        choices=['auto', 'hardlink', 'symlink', 'copy'],
        help='how images get into the folder (default auto: hard links where the file system has '
        'them, else copies)',
    )
    add_num_workers(parser)
    add_force(parser, 'an existing folder, which is moved aside')
    _add_filters(parser)


class _Threshold(argparse.Action):
    """A number, or NAME=NUMBER for each class."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str] | Any,
        option_string: str | None = None,
    ) -> None:
        try:
            if len(values) == 1 and '=' not in values[0]:
                threshold: Any = float(values[0])
            else:
                pairs = [value.rpartition('=') for value in values]
                threshold = {name: float(number) for name, _, number in pairs}
        except ValueError:
            threshold = {'': 0}
        if isinstance(threshold, dict) and '' in threshold:
            parser.error(
                f'{option_string} takes a number, or NAME=NUMBER for each class: {" ".join(values)}'
            )
        setattr(namespace, self.dest, threshold)


def _thresholds_from(text: str) -> dict[str, Any]:
    """``percentile=NUMBER``, ``labeled=FILE`` or ``held_out=FILE``."""
    name, _, value = text.partition('=')
    if name not in ('percentile', 'labeled', 'held_out') or not value:
        raise argparse.ArgumentTypeError('give percentile=NUMBER, labeled=FILE or held_out=FILE')
    try:
        return {name: float(value) if name == 'percentile' else value}
    except ValueError:
        raise argparse.ArgumentTypeError(f'{value} is not a number') from None


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = add_label_filters(
        parser,
        'which pseudo-labels are used, as by PseudoLabelDataset',
        thresholds=dict(nargs='+', action=_Threshold, metavar='NUMBER'),
        note='; or NAME=NUMBER for each class, as for the next three',
    )
    group.add_argument(
        '--thresholds-from',
        type=_thresholds_from,
        metavar='KEY=VALUE',
        help='percentile=60 leaves out the lowest 60 %% of each class, labeled=FILE keeps as many '
        'per image as a COCO JSON has, held_out=FILE takes the thresholds.json of a pipeline; only '
        'where that is above --score-thr',
    )
    group.add_argument(
        '--keep-overlaps',
        action='store_true',
        help='leave pixels that several claim to all of them, not to the best',
    )


def run(args: argparse.Namespace) -> None:
    from mmcast.pseudo_labels.trainers import export_labels

    export_labels(
        args.out,
        val=args.val,
        labeled=args.labeled,
        pseudo_labels=args.pseudo_labels,
        test=args.test,
        labeled_images=args.labeled_images,
        pseudo_images=args.pseudo_images,
        val_images=args.val_images,
        test_images=args.test_images,
        classes=args.classes,
        score_thr=args.score_thr,
        class_score_thr=args.class_score_thr,
        mask_quality_thr=args.mask_quality_thr,
        agreement_thr=args.agreement_thr,
        thresholds_from=args.thresholds_from,
        min_area=args.min_area,
        min_visible=args.min_visible,
        top_k=args.top_k,
        resolve_overlaps=not args.keep_overlaps,
        crowd_as_instances=args.crowd_as_instances,
        value_range=args.value_range,
        link=args.link,
        num_workers=args.num_workers,
        force=args.force,
    )
