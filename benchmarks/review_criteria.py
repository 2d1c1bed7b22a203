"""How well the criteria of ``mmcast review export`` find images with wrong pseudo-labels.

    python benchmarks/review_criteria.py work_dirs/cast_toy/0*_pseudo_label_*/annotations.json \
        --hidden data/toy_cityscapes/annotations/instances_train.json

Prints for every criterion the rank correlation with the errors of an image (labels above the
threshold that are wrong, and objects without a label), and the mean number of errors in the 20
least sure images.
"""

import argparse

import numpy as np
from scipy.stats import spearmanr

from mmcast.pseudo_labels.quality import compare_labels, read_ground_truth
from mmcast.pseudo_labels.store import read_pseudo_labels
from mmcast.review.selection import CRITERIA, ScoredLabels

MARGIN, TOP = 0.1, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('stores', nargs='+', help='pseudo-label files')
    parser.add_argument('--hidden', required=True, help='COCO JSON of held-out ground truth')
    parser.add_argument('--score-thr', type=float, default=0.3)
    args = parser.parse_args()
    for path in args.stores:
        store = read_pseudo_labels(path)
        compare(path, store, read_ground_truth(args.hidden, store), args.score_thr)


def compare(path: str, store: dict, hidden: dict[int, list[dict]], threshold: float) -> None:
    """Prints a table of one file."""
    stored: dict[int, list[dict]] = {key: [] for key in hidden}
    for ann in store['annotations']:
        if ann['image_id'] in stored:
            stored[ann['image_id']].append(ann)
    thresholds = {category['id']: threshold for category in store['categories']}
    labels = {
        key: ScoredLabels(
            [ann for ann in own if ann['score'] > threshold],
            [ann for ann in own if ann['score'] <= threshold],
            thresholds,
        )
        for key, own in stored.items()
    }
    errors = np.array([count_errors(labels[key].sure, hidden[key]) for key in labels])
    print(f'{path}: {len(errors)} images with {errors.mean():.2f} errors each')
    for name, criterion in CRITERIA.items():
        try:
            values = np.array([criterion(own, MARGIN) for own in labels.values()])
        except KeyError:  # a score that this teacher does not tell
            continue
        top = np.argsort(-values, kind='stable')[:TOP]
        correlation = spearmanr(values, errors)[0]
        print(f'  {name:16} correlation {correlation:5.2f}, errors {errors[top].mean():6.2f}')


def count_errors(labels: list[dict], truths: list[dict]) -> int:
    """Wrong labels and missed objects of one image."""
    found = compare_labels({0: labels}, {0: truths})
    correct = int(found.correct.sum())
    return len(found.correct) - correct + found.total - correct


if __name__ == '__main__':
    main()
