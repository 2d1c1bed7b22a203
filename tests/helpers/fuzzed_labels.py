"""Damaged label and pseudo-label files, through all that reads such files.

    python tests/helpers/fuzzed_labels.py --cases 2000

prints every case that ends in something other than success or a `CASTError` of one line.
"""

import argparse
import contextlib
import io
import json
import shutil
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
from fuzzing import damage_json_file, run_cases
from mmengine.config import Config
from mmengine.registry import DefaultScope
from stored_labels import CAR, PERSON, label, rectangle, write_hidden, write_images, write_labels

from mmcast.coco.checks.run import check_dataset
from mmcast.coco.custom import prepare_custom_data
from mmcast.coco.splits import make_split
from mmcast.data.config_data import check_config_data
from mmcast.data.loading import LoadCompressedAnnotations, LoadConfidenceMap
from mmcast.errors import CASTError
from mmcast.masks.confidence import encode_map
from mmcast.pseudo_labels.inspection import describe_stores, load_stores
from mmcast.pseudo_labels.store import make_info
from mmcast.registry import DATASETS, METRICS

CLASSES = ('car', 'person')
SCORES = dict(class_score=0.5, mask_quality=0.7)
FILTERS = dict(thresholds=dict(score=0.3), min_area=2, min_visible=0.1, top_k=5)


@cache
def folder():
    """With images of both sets, made once in each process; it goes with the process."""
    name = tempfile.TemporaryDirectory()
    write_images(Path(name.name, 'images'), range(1, 6))
    write_images(Path(name.name, 'more'), range(8, 10))
    folder.kept = name
    return Path(name.name)


def intact_labels():
    polygon = [[2.5, 2, 12, 2, 12, 9.5, 2, 9]]
    square = dict(label(CAR, rectangle(2, 2, 8, 8)), segmentation=polygon)
    runs = dict(label(PERSON, rectangle(0, 0, 3, 3)))
    runs['segmentation'] = dict(size=[20, 30], counts=[0, 3, 17, 3, 577])
    parts = dict(square, segmentation=polygon + [[15, 12, 20, 12, 20, 18]])
    found = {
        1: [square, label(PERSON, rectangle(9, 9, 5, 5)), runs],
        2: [parts, label(CAR, rectangle(0, 0, 20, 30), iscrowd=1)],
        3: [dict(square, extra='x')],
        4: [],
    }
    path = write_hidden(folder() / 'intact.json', found)
    return json.loads(path.read_text())


def intact_pseudo_labels():
    found = {
        1: [
            label(CAR, rectangle(0, 0, 9, 9), 0.9, **SCORES),
            label(PERSON, rectangle(2, 2, 9, 9), 0.6),
        ],
        2: [label(CAR, rectangle(1, 1, 4, 4), 0.2), label(CAR, rectangle(0, 0, 20, 30), 1.0)],
        3: [],
    }
    path = write_labels(
        folder() / 'intact.json', found, unreadable=['9.png'], info=make_info(confidence=True)
    )
    content = json.loads(path.read_text())
    for image in content['images']:
        image['confidence'] = encode_map(np.full((20, 30), 9, np.uint8))
    return content


def damaged(content, seed):
    path = folder() / 'labels.json'
    path.write_bytes(damage_json_file(content, np.random.default_rng(seed)))
    return path


def label_file_case(seed):
    """`mmcast check`, the data step, splits, the checks before training, data set and metric."""
    path = damaged(intact_labels(), seed)
    errors = []
    for read in (_check, _prepare, _split, _train):
        with quiet():
            try:
                read(path)
            except CASTError as error:
                errors.append(error)
    for error in errors:
        if '\n' in str(error).strip() or not str(error).strip():
            raise error


def _check(path):
    check_dataset(path, path.parent / 'images', workers=1, progress=False).to_dict()


def _prepare(path):
    shutil.rmtree(path.parent / 'prepared', ignore_errors=True)
    prepare_custom_data(path.parent, path.name, 'more', path.parent / 'prepared')


def _split(path):
    outputs = path.parent / 'labeled.json', path.parent / 'unlabeled.json'
    make_split(path, *outputs, percent=50, stratify=True, force=True)


def _train(path):
    dataset = dict(
        type='CocoDataset',
        ann_file=str(path),
        data_prefix=dict(img=str(path.parent / 'images')),
        metainfo=dict(classes=CLASSES),
        pipeline=[],
        serialize_data=False,
    )
    check_config_data(Config(dict(train_dataloader=dict(dataset=dataset))), ['train_dataloader'])
    load_all(DATASETS.build(dataset))
    METRICS.build(dict(type='CocoMetric', ann_file=str(path), metric='segm'))


def load_all(dataset, *transforms):
    """The masks of all images, as training gets them."""
    load = LoadCompressedAnnotations(with_bbox=True, with_mask=True)
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        if (info['height'], info['width']) != (20, 30):
            continue  # refused when the image is loaded
        results = dict(info, ori_shape=(20, 30))
        for transform in (load, *transforms):
            results = transform(results)
        results['gt_masks'].to_ndarray()


def pseudo_label_file_case(seed):
    """Data set and inspection."""
    path = damaged(intact_pseudo_labels(), seed)
    with quiet():
        dataset = DATASETS.build(
            dict(
                type='PseudoLabelDataset',
                ann_file=str(path),
                data_prefix=dict(img=str(path.parent / 'images')),
                metainfo=dict(classes=CLASSES),
                confidence=True,
                pipeline=[],
                serialize_data=False,
            )
        )
        load_all(dataset, LoadConfidenceMap())
        _inspect(path)


def ground_truth_case(seed):
    """Inspection with held-out ground truth, which is the damaged file."""
    hidden = intact_labels()
    for image in hidden['images']:
        image['id'] += 7
    for annotation in hidden['annotations']:
        annotation['image_id'] += 7
    path = damaged(hidden, seed)
    store = folder() / 'intact_labels.json'
    store.write_text(json.dumps(intact_pseudo_labels()))
    with quiet():
        _inspect(store, path)


def _inspect(store, hidden=None):
    loaded = load_stores(dict(labels=store), FILTERS, hidden)
    json.dumps(describe_stores(loaded, FILTERS, hidden, images=2))


@contextlib.contextmanager
def quiet():
    with contextlib.redirect_stdout(io.StringIO()), DefaultScope.overwrite_default_scope('mmcast'):
        yield


def case(seed):
    """A file of one of the three kinds by turns."""
    cases = label_file_case, pseudo_label_file_case, ground_truth_case
    cases[seed % len(cases)](seed)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--cases', type=int, default=2000, help='all in all')
    parser.add_argument('--first', type=int, default=0, help='the first seed')
    args = parser.parse_args()
    start = time.monotonic()
    failures = run_cases(case, range(args.first, args.first + args.cases))
    for failure in failures:
        print(failure)
    print(f'{args.cases} files, {len(failures)} failures, {time.monotonic() - start:.0f} s')
    sys.exit(bool(failures))


if __name__ == '__main__':
    main()
