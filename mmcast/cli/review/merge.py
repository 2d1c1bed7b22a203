"""Merges what people corrected into the labeled set: a new COCO JSON, and a manifest of what was
added, changed, removed and left as it was.

Takes CVAT's XML, Label Studio's JSON, Labelme's JSON files, or COCO JSON of any tool.
"""

import argparse
import os
import subprocess
from pathlib import Path

from mmcast.cli.options import add_force, check_output_files

_LABELED = 'data/toy_cityscapes/annotations/labeled_10percent_seed0.json'
EXAMPLES = {
    "CVAT's export; all of its images were looked at": (
        '{command} review review/annotations.xml --reviewed all --labeled '
        + _LABELED
        + ' --out labeled_2.json'
    ),
    "Label Studio's export, which says what was submitted": (
        '{command} review_label_studio project.json --labeled ' + _LABELED + ' --out labeled_2.json'
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('task', help='folder that mmcast review export wrote')
    parser.add_argument(
        'exports', nargs='+', metavar='EXPORT', help='file, or folder of files, that the tool wrote'
    )
    parser.add_argument('--out', required=True, type=Path, help='COCO JSON to write')
    parser.add_argument('--labeled', metavar='JSON', help='COCO JSON of the labeled images so far')
    parser.add_argument(
        '--labeled-images', help="their folder (default that of the task's images, or the JSON's)"
    )
    parser.add_argument(
        '--img-dir', help='folder of the original images (default that of the export)'
    )
    state = parser.add_mutually_exclusive_group()
    state.add_argument(
        '--reviewed',
        metavar='all|FILE',
        help='images that were looked at: all of the export, or those that a text file names, one '
        'on each line; needed for CVAT and COCO',
    )
    state.add_argument(
        '--jobs',
        metavar='JSON',
        help="CVAT's answer to GET /api/jobs?task_id=NUMBER: images of completed jobs were looked "
        'at',
    )
    parser.add_argument('--reviewer', metavar='NAME', help='who reviewed, for the manifest')
    parser.add_argument(
        '--already-labeled',
        choices=('refuse', 'replace', 'skip'),
        default='refuse',
        help='what to do with a reviewed image that is in --labeled (default refuse)',
    )
    parser.add_argument(
        '--crowds',
        choices=('objects', 'groups'),
        help='what iscrowd 1 in the export means; needed where there is any',
    )
    parser.add_argument(
        '--add-classes', action='store_true', help='take classes that are new in the export'
    )
    parser.add_argument(
        '--unchanged-iou',
        type=float,
        default=0.8,
        help='an object is unchanged if its IoU with the proposal is this or more and it differs '
        'by pixels at the outline alone (default 0.8; with 1 every pixel counts)',
    )
    parser.add_argument(
        '--unlabeled', metavar='JSON', help='COCO JSON of the unlabeled images so far'
    )
    parser.add_argument(
        '--unlabeled-out', metavar='JSON', help='COCO JSON to write: those that were not merged'
    )
    parser.add_argument(
        '--page', type=Path, help='page to write: what was changed (default beside --out, as .html)'
    )
    add_force(parser, 'existing files')


def run(args: argparse.Namespace) -> None:
    if bool(args.unlabeled) != bool(args.unlabeled_out):
        args.parser.error('give --unlabeled and --unlabeled-out together')
    if not 0.5 <= args.unchanged_iou <= 1:
        args.parser.error('--unchanged-iou is from 0.5 to 1')
    page = args.page or args.out.with_suffix('.html')
    from mmcast.reports.review import is_merge_page, write_merge_page
    from mmcast.review.merge import merge_review

    earlier = args.out.exists() and is_merge_page(page, args.out)  # of the same call
    check_output_files([page], force=args.force or earlier)
    done = merge_review(
        args.task,
        args.exports,
        args.out,
        labeled=args.labeled,
        labeled_images=args.labeled_images,
        img_dir=args.img_dir,
        reviewed=args.reviewed,
        jobs=args.jobs,
        already_labeled=args.already_labeled,
        crowds=args.crowds,
        add_classes=args.add_classes,
        unchanged_iou=args.unchanged_iou,
        reviewer=args.reviewer,
        unlabeled=args.unlabeled,
        unlabeled_out=args.unlabeled_out,
        page=page,
        force=args.force,
    )
    write_merge_page(done, Path(args.task), page)
    print('\n'.join([*done.notes, *summary(done.manifest)]))
    print(*done.files.values(), page, sep='\n')
    originals = done.unlabeled_folder or Path(args.img_dir or done.task.img_dir)
    print(next_command(args.out, done.img_dir, originals, args.unlabeled_out))


def next_command(labeled: Path, images: Path, originals: Path, unlabeled: str | None) -> str:
    """The training that takes what was merged.

    Args:
        labeled: the merged set.
        images: the folder of its images.
        originals: that of the unlabeled ones.
        unlabeled: list of those, whose names the training reads relative to its ``data_root``.
    """
    if unlabeled:
        root, *paths = (
            str(path.absolute()) for path in (originals, labeled, images, Path(unlabeled))
        )
    else:
        root, paths = '.', [str(labeled), _short(images), _short(originals)]
    names = ('labeled', 'labeled_images', 'unlabeled')
    words = [f'variables.{name}={path}' for name, path in zip(names, paths)]
    words = subprocess.list2cmdline([f'variables.data_root={root}', *words])
    return f'next: mmcast train cast_custom.py --cfg-options {words}'


def _short(path: Path) -> str:
    """A path as seen from here, where it is below."""
    name = os.path.relpath(path)
    return str(path) if name.startswith('..') else name


def summary(manifest: dict) -> list[str]:
    """The manifest in lines."""
    images, objects, merged = (manifest[key] for key in ('images', 'objects', 'merged'))
    states = ('unchanged', 'corrected', 'empty')
    missing = ('not_reviewed', 'did_not_come_back', 'labeled_already')
    lines = [
        f'{images["handed_out"]} images were handed out, {images["merged"]} are merged: '
        + ', '.join(f'{images[state]} {state}' for state in states),
        *(f'{images[state]} {state.replace("_", " ")}' for state in missing if images[state]),
    ]
    lines.append(
        f'{objects["proposals"]} proposals became {objects["merged"]} objects: '
        f'{objects["unchanged"]} unchanged ({objects["identical"]} pixel by pixel), '
        f'{objects["changed"]} changed ({objects["class_changed"]} in class), '
        f'{objects["added"]} added, {objects["removed"]} removed'
    )
    if objects['unchanged'] > objects['identical']:
        lines.append(
            f'{objects["unchanged"] - objects["identical"]} came back different at the outline '
            f'alone (IoU from {objects["lowest_unchanged_iou"]:.2f}), by conversion: their '
            'proposals are taken; --unchanged-iou 1 takes what came back'
        )
    if objects['groups']:
        lines.append(f'{objects["groups"]} are groups (iscrowd 1), which are not trained on')
    return [
        *lines,
        f'the labeled set has {merged["images"]} images and {merged["annotations"]} annotations',
    ]
