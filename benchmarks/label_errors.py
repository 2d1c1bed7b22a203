"""Which errors of pseudo-labels cost most: corrects one kind at a time, with held-out ground
truth.

    python benchmarks/label_errors.py work_dirs/cast_dsb2018/05_pseudo_label_1/annotations.json \
        data/dsb2018/annotations/instances_train.json --out-dir work_dirs/label_errors

Writes pseudo-label files to train the same step with, each in place of the store (`--cfg-options
train_dataloader.dataset.datasets.1.ann_file=FILE` on the step's config):

    no_wrong.json     without the labels that match no ground truth
    mended.json       the matched labels with the ground truths' masks
    all_found.json    with the ground truths that none matches
    hidden.json       the ground truth itself

A label matches the ground truth of its class of the highest IoU that is left, if that is 0.5 or
more.
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils

from mmcast.cli.errors import report_errors
from mmcast.pseudo_labels.quality import pair, read_ground_truth
from mmcast.pseudo_labels.store import SCORES, read_pseudo_labels, write_store

FILES = ('no_wrong', 'mended', 'all_found', 'hidden')


def mend(labels: list[dict], truths: list[dict]) -> dict[str, list[dict]]:
    """The labels of one image, best first, for each of ``FILES``; what a ground truth brings in has
    scores of 1.
    """
    ious = np.zeros((len(labels), len(truths)))
    if labels and truths:
        ious = mask_utils.iou(
            *([ann['segmentation'] for ann in part] for part in (labels, truths)), [0] * len(truths)
        )
        ious *= [
            [label['category_id'] == truth['category_id'] for truth in truths] for label in labels
        ]
    own = pair(ious)
    right = {index: label for index, label in zip(own, labels) if index is not None}
    wrong = [label for index, label in zip(own, labels) if index is None]
    sure = [_as_label(truth) for truth in truths]
    mended = [
        dict(sure[index], **{name: label[name] for name in SCORES if name in label})
        for index, label in right.items()
    ]
    missing = [label for index, label in enumerate(sure) if index not in right]
    return dict(
        no_wrong=list(right.values()),
        mended=mended + wrong,
        all_found=labels + missing,
        hidden=sure,
    )


def _as_label(truth: dict) -> dict:
    return dict(
        truth, bbox=mask_utils.toBbox(truth['segmentation']).tolist(), **dict.fromkeys(SCORES, 1.0)
    )


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('store')
    parser.add_argument('hidden', help='held-out ground truth of the same images, COCO JSON')
    parser.add_argument('--score-thr', type=float, default=0.3, help='labels above this are used')
    parser.add_argument('--out-dir', type=Path, required=True)
    args = parser.parse_args()
    store = read_pseudo_labels(args.store)
    hidden = read_ground_truth(args.hidden, store)
    labels = defaultdict(list)
    for ann in sorted(store['annotations'], key=lambda ann: -ann['score']):
        if ann['score'] > args.score_thr:
            labels[ann['image_id']].append(
                {key: ann[key] for key in ann if key not in ('id', 'image_id')}
            )

    args.out_dir.mkdir(parents=True, exist_ok=True)
    records, count = {name: [] for name in FILES}, Counter()
    for image in store['images']:
        truths = [truth for truth in hidden.get(image['id'], ()) if not truth['iscrowd']]
        for name, annotations in mend(labels[image['id']], truths).items():
            records[name].append(dict(image=image, annotations=annotations))
            count[name] += len(annotations)
    for name in FILES:
        write_store(
            args.out_dir / f'{name}.json',
            dict(store['info'], mended=name),
            store['categories'],
            records[name],
        )
    total = sum(map(len, labels.values()))
    print(
        f'{total} labels, {count["no_wrong"]} of them right, {total - count["no_wrong"]} wrong; '
        f'{count["hidden"]} ground truths, {count["hidden"] - count["no_wrong"]} of them not found'
    )
    print('\n'.join(str(args.out_dir / f'{name}.json') for name in FILES))


if __name__ == '__main__':
    main()
