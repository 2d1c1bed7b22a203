"""Writes the images whose pseudo-labels are least sure as a task of an annotation tool, with the
pseudo-labels as proposals.

Calling it again resumes where it was interrupted.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mmcast.cli.options import add_force, add_label_filters, check_output_files
from mmcast.review.task import TOOLS

if TYPE_CHECKING:
    from mmcast.review.export import Exported

_TOY = (
    'work_dirs/cast_toy/06_pseudo_label_2/annotations.json '
    '--img-dir data/toy_cityscapes/leftImg8bit/train'
)
EXAMPLES = {
    'the 10 least sure images of cast_toy.py, for CVAT': (
        '{command} ' + _TOY + ' --tool cvat --number 10 --out review'
    ),
    'for Label Studio, none at random, classes take turns, without what is labeled already': (
        '{command} ' + _TOY + ' --tool label_studio --number 10 --random-share 0 --spread-classes '
        '--labeled data/toy_cityscapes/annotations/labeled_10percent_seed0.json '
        '--out review_label_studio'
    ),
}
_CRITERIA = (
    'expected_errors', 'mean_score', 'mean_entropy', 'near_threshold', 'class_score',
    'mask_quality', 'agreement',
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('store', metavar='JSON', help='file of pseudo-labels')
    parser.add_argument('--img-dir', required=True, help='folder of its images')
    parser.add_argument('--out', required=True, type=Path, help='folder of the task, to be made')
    parser.add_argument('--tool', required=True, choices=TOOLS, help='which imports the task')
    choice = parser.add_argument_group('which images')
    choice.add_argument('--number', type=int, default=50, help='how many (default 50)')
    choice.add_argument(
        '--by',
        choices=_CRITERIA,
        default='expected_errors',
        help='what the least sure images are: the most expected errors (default), the lowest mean '
        'of a score, the highest entropy of the scores, or the most labels near the threshold',
    )
    choice.add_argument(
        '--margin',
        type=float,
        default=0.1,
        help='distance from the threshold that near_threshold counts (default 0.1)',
    )
    choice.add_argument(
        '--random-share',
        type=float,
        default=0.2,
        help='fraction that is drawn at random from all images (default 0.2)',
    )
    choice.add_argument('--seed', type=int, default=0, help='of the draw (default 0)')
    choice.add_argument(
        '--spread-classes', action='store_true', help='let classes take turns, rare ones first'
    )
    choice.add_argument(
        '--max-similarity',
        type=float,
        metavar='CORRELATION',
        help='leave out what looks like an image chosen before, such as the next frame of a video: '
        'correlation of thumbnails above this, such as 0.95',
    )
    choice.add_argument(
        '--labeled', metavar='JSON', help='COCO JSON of labeled images, which are left out'
    )
    choice.add_argument('--labeled-images', help='their folder (default --img-dir)')
    add_label_filters(parser, 'which labels are proposals')
    parser.add_argument(
        '--image-url',
        metavar='PREFIX',
        help='what Label Studio finds an image by, before its name (default '
        '/data/local-files/?d=NAME_OF_OUT/images/)',
    )
    parser.add_argument(
        '--page', type=Path, help='page to write: the images (default review.html in --out)'
    )
    add_force(parser, 'another task in --out, whose files are moved aside')


def run(args: argparse.Namespace) -> None:
    page = args.page or args.out / 'review.html'
    from mmcast.reports.review import is_task_page, write_task_page
    from mmcast.review.export import export_review

    exported = (args.out / 'task.json').exists()
    earlier = exported and is_task_page(page, args.out)  # of the same call
    check_output_files(
        [page if exported else args.page], [args.store, args.labeled], args.force or earlier
    )
    given = dict(
        score=args.score_thr,
        class_score=args.class_score_thr,
        mask_quality=args.mask_quality_thr,
        agreement=args.agreement_thr,
    )
    done = export_review(
        args.store,
        args.img_dir,
        args.out,
        args.tool,
        number=args.number,
        criterion=args.by,
        margin=args.margin,
        random_share=args.random_share,
        seed=args.seed,
        spread_classes=args.spread_classes,
        max_similarity=args.max_similarity,
        thresholds={name: value for name, value in given.items() if value is not None},
        min_area=args.min_area,
        min_visible=args.min_visible,
        top_k=args.top_k,
        labeled=args.labeled,
        labeled_images=args.labeled_images,
        image_url=args.image_url,
        force=args.force,
    )
    write_task_page(done, page)
    for line in summary(done):
        print(line)
    print(page)


def summary(done: 'Exported') -> list[str]:
    """What was written, in lines."""
    from mmcast.review.selection import RANDOM

    task, left_out = done.task, done.left_out
    random = sum(image.reason == RANDOM for image in task.images)
    lines = [
        f'{done.folder}: {len(task.images)} images, {random} of them random, with '
        f'{task.number_of_proposals} proposals' + (', exported before' if done.unchanged else '')
    ]
    if len(task.images) < task.settings['number']:
        lines.append(f'asked for {task.settings["number"]}: there are no more')
    if left_out:
        name, why = next(iter(left_out.items()))
        lines.append(f'{len(left_out)} images left out, such as {name}: {why}')
    lines.append('import: ' + _IMPORT[task.tool].format(folder=done.folder))
    if task.tool == 'label_studio':
        address = task.settings['image_url'] + task.images[0].name
        lines.append(f'the server has to find the first image as {address}')
    return lines


_IMPORT = dict(
    cvat=(
        'create a task with the labels of labels.json (tab Raw) and the files of {folder}/images, '
        'then upload annotations.xml as CVAT 1.1'
    ),
    label_studio=(
        'a project with the config of labeling_config.xml, local files served from the folder '
        'above {folder}, then tasks.json'
    ),
    fiftyone=(
        'fiftyone.Dataset.from_dir("{folder}", fiftyone.types.COCODetectionDataset, '
        'label_types="segmentations")'
    ),
    labelme='labelme {folder}/images --labels {folder}/labels.txt; set the flag reviewed when done',
    coco='{folder}/annotations.json with the images of {folder}/images',
)
