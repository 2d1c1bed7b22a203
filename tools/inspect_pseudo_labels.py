"""Look at pseudo-labels: counts, areas, scores, quality and overlays on one HTML page.

Several files of the same images, such as those before and after the teacher's adaptation, stand
side by side.
"""

import argparse
from pathlib import Path

from mmcast.cli.errors import report_errors
from mmcast.errors import CASTError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('stores', nargs='+', metavar='JSON', help='files of tools/pseudo_label.py')
    parser.add_argument(
        '--titles', nargs='+', metavar='TITLE', help='one a file; default: their paths'
    )
    parser.add_argument('--out', required=True, metavar='HTML', help='page to write')
    parser.add_argument('--json', help='file for the same figures')
    parser.add_argument(
        '--labeled', metavar='JSON', help='COCO JSON of the labeled images, to compare with'
    )
    parser.add_argument(
        '--hidden', metavar='JSON', help='COCO JSON with labels that the teacher has not seen'
    )
    parser.add_argument('--img-dir', help='folder of the images, for overlays')
    parser.add_argument(
        '--images',
        type=int,
        default=6,
        help='how many of the worst and of the best to draw (default 6)',
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='use labels with a score above (default 0.3)'
    )
    parser.add_argument('--class-score-thr', type=float, help='and with a class score above')
    parser.add_argument('--mask-quality-thr', type=float, help='and with a mask quality above')
    parser.add_argument(
        '--agreement-thr', type=float, help="and with an agreement of the teacher's halves above"
    )
    parser.add_argument('--min-area', type=int, default=0, help='and of so many pixels or more')
    parser.add_argument(
        '--min-visible',
        type=float,
        default=0,
        help='and of which better ones leave this share of the pixels',
    )
    parser.add_argument('--top-k', type=int, help='at most so many an image')
    parser.add_argument(
        '--force', action='store_true', help='replace existing files of --out and --json'
    )
    return parser.parse_args()


def check_outputs(args: argparse.Namespace) -> None:
    """Before the work, not after it."""
    inputs = [Path(path).resolve() for path in (*args.stores, args.labeled, args.hidden) if path]
    for path in filter(None, (args.out, args.json)):
        if Path(path).resolve() in inputs:
            raise CASTError(f'{path} is an input: name another file for the result')
        if Path(path).exists() and not args.force:
            raise CASTError(f'{path} exists: delete it, name another file or use --force')


@report_errors
def main() -> None:
    args = parse_args()
    titles = args.titles or args.stores
    if len(titles) != len(args.stores) or len(set(titles)) != len(titles):
        raise CASTError(
            f'{len(args.stores)} files need as many different titles: give them with --titles'
        )
    check_outputs(args)
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
        line = (
            f'{title}: {figures["used"]} of {figures["stored"]} labels used, '
            f'on {figures["images"]} images'
        )
        quality = figures.get('quality', {})
        shown = {
            name: quality[name]
            for name in ('ap', 'ap50', 'precision', 'recall', 'mean_iou')
            if quality.get(name) is not None
        }
        print(line + ''.join(f', {name} {100 * value:.1f}' for name, value in shown.items()))
    print(args.out)


if __name__ == '__main__':
    main()
