"""Shows pseudo-labels on one HTML page: counts, areas, scores, quality and overlays.

Several files of the same images, such as those before and after the teacher's adaptation, stand
side by side.
"""

import argparse

from mmcast.cli.options import add_force, add_label_filters, check_output_files

EXAMPLES = {
    'both generations of pseudo-labels that cast_toy.py made, against held-out ground truth': (
        '{command} work_dirs/cast_toy/04_pseudo_label_1/annotations.json '
        'work_dirs/cast_toy/06_pseudo_label_2/annotations.json --titles first second '
        '--hidden data/toy_cityscapes/annotations/instances_train.json '
        '--img-dir data/toy_cityscapes/leftImg8bit/train --out pseudo_labels.html'
    ),
}
_QUALITY = ('ap', 'ap50', 'precision', 'recall', 'mean_iou')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('stores', nargs='+', metavar='JSON', help='files of pseudo-labels')
    parser.add_argument(
        '--titles', nargs='+', metavar='TITLE', help='one per file; default: their paths'
    )
    parser.add_argument('--out', required=True, metavar='HTML', help='page to write')
    parser.add_argument('--json', help='file for the same figures')
    parser.add_argument(
        '--labeled', metavar='JSON', help='COCO JSON of the labeled images, to compare with'
    )
    parser.add_argument(
        '--hidden', metavar='JSON', help='COCO JSON of held-out ground truth: how good they are'
    )
    parser.add_argument('--img-dir', help='folder of the images, for overlays')
    parser.add_argument(
        '--images',
        type=int,
        default=6,
        help='how many of the worst and of the best to draw (default 6)',
    )
    add_label_filters(parser, 'which labels count as used')
    add_force(parser, 'existing files of --out and --json')


def run(args: argparse.Namespace) -> None:
    from mmcast.errors import CASTError

    titles = args.titles or args.stores
    if len(titles) != len(args.stores) or len(set(titles)) != len(titles):
        raise CASTError(
            f'{len(args.stores)} files need as many different titles: give them with --titles'
        )
    check_output_files((args.out, args.json), (*args.stores, args.labeled, args.hidden), args.force)
    from mmcast.reports.pseudo_labels import inspect_pseudo_labels

    report = inspect_pseudo_labels(
        dict(zip(titles, args.stores)),
        args.out,
        json_file=args.json,
        labeled=args.labeled,
        hidden=args.hidden,
        img_dir=args.img_dir,
        score_thr=args.score_thr,
        class_score_thr=args.class_score_thr,
        mask_quality_thr=args.mask_quality_thr,
        agreement_thr=args.agreement_thr,
        min_area=args.min_area,
        min_visible=args.min_visible,
        top_k=args.top_k,
        images=args.images,
    )
    for title, figures in report['stores'].items():
        quality = figures.get('quality', {})
        shown = {name: quality[name] for name in _QUALITY if quality.get(name) is not None}
        print(
            f'{title}: {figures["used"]} of {figures["stored"]} labels used, '
            f'on {figures["images"]} images'
            + ''.join(f', {name} {100 * value:.1f}' for name, value in shown.items())
        )
    print(args.out)
