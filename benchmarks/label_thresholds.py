"""How right pseudo-labels are above different thresholds, by held-out ground truth.

    python benchmarks/label_thresholds.py work_dirs/cast_toy/04_pseudo_label_1/annotations.json \
        data/toy_cityscapes/annotations/instances_train.json \
        --labeled data/toy_cityscapes/annotations/labeled_10percent_seed0.json \
        --held-out work_dirs/cast_toy/06_thresholds_1/thresholds.json

Labels are read as `PseudoLabelDataset` reads them, and are correct as in COCO's evaluation at IoU
0.5. F1 of all labels together, and its mean over the classes that have ground truth. The last row
is what no choice from other images can reach: the best threshold of each class on these. Below it,
the best one for all classes where labels are ranked by other stored scores.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping

from mmcast.cli.errors import report_errors
from mmcast.pseudo_labels.filters import expand_threshold
from mmcast.pseudo_labels.quality import read_ground_truth
from mmcast.pseudo_labels.selection import choose_thresholds
from mmcast.pseudo_labels.store import read_pseudo_labels
from mmcast.pseudo_labels.thresholds import (
    Counts,
    HeldOut,
    best_thresholds,
    compare_rankings,
)


def describe(title: str, counts: Iterable[Counts]) -> str:
    """A row of the table."""
    counts = list(counts)
    every = sum(counts, Counts(0, 0, 0))
    known = [each.f1 for each in counts if each.objects]
    figures = (every.f1, sum(known) / len(known), every.precision, every.recall)
    return (
        f'{title:32}' + ''.join(f'{100 * value:10.1f}' for value in figures) + f'{every.labels:9}'
    )


def counts_above(held_out: HeldOut, limits: Mapping[int, float]) -> list[Counts]:
    judged = held_out.judge(limits)
    return [judged[category].above(limits[category]) for category in limits]


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('store', help='pseudo-labels')
    parser.add_argument('hidden', help='held-out ground truth of the same images, COCO JSON')
    parser.add_argument('--score-thr', type=float, nargs='+', default=[0.3, 0.4, 0.5])
    parser.add_argument('--lowest', type=float, default=0.05, help='score_thr of the other rows')
    parser.add_argument('--min-visible', type=float, default=0)
    parser.add_argument('--labeled', help='the labeled set, COCO JSON')
    parser.add_argument('--held-out', nargs='*', default=[], help='files of a thresholds step')
    args = parser.parse_args()
    store = read_pseudo_labels(args.store)
    ids = {category['name']: category['id'] for category in store['categories']}
    truths = read_ground_truth(args.hidden, store)
    labels = defaultdict(list)
    for ann in store['annotations']:
        labels[ann['image_id']].append(ann)

    lowest = expand_threshold(args.lowest, ids, 'lowest')
    held_out = HeldOut(labels, truths, dict(score=lowest), dict(min_visible=args.min_visible))
    print(f'{"":32}' + ''.join(f'{name:>10}' for name in ('F1', 'mean F1', 'precision', 'recall')))
    for value in args.score_thr:
        limits = expand_threshold(value, ids, 'score_thr')
        print(describe(f'score_thr {value:g}', counts_above(held_out, limits)))
    sources = [dict(held_out=path) for path in args.held_out]
    for source in [dict(labeled=args.labeled)] * bool(args.labeled) + sources:
        limits, _ = choose_thresholds(store, ids, dict(score=args.lowest), source, args.store)
        title = ', '.join(f'{key} {value.split("/")[-2:][0]}' for key, value in source.items())
        print(describe(title, counts_above(held_out, limits['score'])))
    best = best_thresholds(held_out, fewest_objects=1)
    print(describe('best on these images', (choice.counts for choice in best.values())))
    for name, found in compare_rankings(held_out).items():
        print(f'best for all classes, ranked by {name}: F1 {100 * found["f1"]:.1f}')


if __name__ == '__main__':
    main()
