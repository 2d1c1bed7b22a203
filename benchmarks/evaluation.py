"""COCO's AP: CPU seconds and memory of evaluating many predictions, against pycocotools.

    python benchmarks/evaluation.py --images 5000 --detections 100 --rounds 3

Makes masks once (80 classes, 7 objects an image, one in a hundred a group; equal scores occur) and
evaluates them, each time in a process of its own, in turns:

evaluator: FastCOCOeval against pycocotools' COCOeval, each with the loadRes before and the summary
after, at mmdet's 100, 300 and 1000 detections. Precision and recall are compared.
metric: mmcast's CocoMetric against mmdet's, from predictions to figures. The figures are compared.

Seconds are those of the processor. Memory is the peak above what the process had with libraries and
masks. Exit status 1 where the results are not the same to 1e-9, or a ratio is below --least.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import pickle
import tempfile
import time
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmcast.cli.errors import report_errors
from mmcast.coco.evaluation import FastCOCOeval
from mmcast.errors import CASTError
from mmcast.masks.rle import text_rle
from mmcast.memory import PeakMemory

HEIGHT, WIDTH, CLASSES, OBJECTS = 480, 640, 80, 7.3
PARTS = dict(
    evaluator=('FastCOCOeval', "pycocotools' COCOeval"),
    metric=("mmcast's CocoMetric", "mmdet's CocoMetric"),
)


def star(rng: np.random.Generator) -> np.ndarray:
    """Twelve points around a centre, 8 to 250 pixels across."""
    size = np.exp(rng.uniform(np.log(8), np.log(250)))
    angle, radius = np.sort(rng.uniform(0, 2 * np.pi, 12)), size / 2 * rng.uniform(0.6, 1.2, 12)
    centre = rng.uniform((0, 0), (WIDTH, HEIGHT))
    return centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def encode(polygons: list[np.ndarray]) -> list[dict]:
    drawn = [polygon.clip(0, (WIDTH - 1, HEIGHT - 1)).ravel().tolist() for polygon in polygons]
    return [text_rle(rle) for rle in mask_utils.frPyObjects(drawn, HEIGHT, WIDTH)] if drawn else []


def make(images: int, detections: int) -> tuple[dict, list[dict]]:
    """Ground truth and predictions in COCO's form; each hundredth image is empty."""
    rng, listed, truth, found = np.random.default_rng(0), [], [], []
    for image in range(1, images + 1):
        listed.append(dict(id=image, height=HEIGHT, width=WIDTH, file_name=f'{image}.png'))
        objects = [star(rng) for _ in range(rng.poisson(OBJECTS) if image % 100 else 0)]
        classes = rng.integers(1, CLASSES + 1, len(objects)).tolist()
        for rle, category in zip(encode(objects), classes):
            truth.append(
                dict(
                    id=len(truth) + 1,
                    image_id=image,
                    category_id=category,
                    iscrowd=int(rng.random() < 0.01),
                    area=int(mask_utils.area(rle)),
                    bbox=mask_utils.toBbox(rle).tolist(),
                    segmentation=rle,
                )
            )
        polygons, categories = [], rng.integers(1, CLASSES + 1, detections).tolist()
        for place in range(detections):
            if objects and rng.random() < 0.6:
                number = rng.integers(len(objects))
                polygons.append(objects[number] + rng.normal(0, 1, 2) * rng.choice([1, 5, 20]))
                if rng.random() < 0.7:
                    categories[place] = classes[number]
            else:
                polygons.append(star(rng))
        for rle, category in zip(encode(polygons), categories):
            score = round(rng.random(), 3)
            found.append(dict(image_id=image, category_id=category, score=score, segmentation=rle))
    named = [dict(id=number, name=f'class {number}') for number in range(1, CLASSES + 1)]
    return dict(images=listed, annotations=truth, categories=named), found


def evaluator(ours: bool, truth: dict, found: list[dict]):
    """What is timed, as a function without arguments that returns (R, ...) figures."""
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()

    def run() -> np.ndarray:
        kind = FastCOCOeval if ours else COCOeval
        evaluation = kind(coco, coco.loadRes(found), 'segm')
        evaluation.params.maxDets = [100, 300, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        arrays = (evaluation.eval['precision'], evaluation.eval['recall'], evaluation.stats)
        return np.concatenate([np.ravel(each) for each in arrays])

    return run


def metric(ours: bool, truth: dict, found: list[dict]):
    """Likewise; the figures are those that a log has, rounded by mmdet."""
    import json

    from mmdet.evaluation import CocoMetric as MMDetCocoMetric

    import mmcast.data

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'truth.json')
        path.write_text(json.dumps(truth), encoding='utf-8')
        metric = (mmcast.data.CocoMetric if ours else MMDetCocoMetric)(str(path), metric='segm')
    metric.dataset_meta = dict(classes=[each['name'] for each in truth['categories']])
    by_image: dict[int, list[dict]] = {image['id']: [] for image in truth['images']}
    for each in found:
        by_image[each['image_id']].append(each)
    for image, own in by_image.items():
        result = dict(
            img_id=image,
            labels=np.array([each['category_id'] - 1 for each in own]),
            scores=np.array([each['score'] for each in own]),
            bboxes=np.zeros((len(own), 4)),
            masks=[each['segmentation'] for each in own],
        )
        metric.results.append((dict(img_id=image, height=HEIGHT, width=WIDTH), result))

    def run() -> np.ndarray:
        return np.array(list(metric.compute_metrics(metric.results).values()))

    return run


def measure(part: str, ours: bool, path: Path, pipe) -> None:
    """Sends CPU seconds, GiB above what was there before, and the figures."""
    with path.open('rb') as file:
        truth, found = pickle.load(file)
    with contextlib.redirect_stdout(io.StringIO()):
        run = globals()[part](ours, truth, found)
        with PeakMemory() as before:
            pass
        with PeakMemory() as peak:
            start = time.process_time()
            figures = run()
            seconds = time.process_time() - start
    pipe.send((seconds, (peak.megabytes - before.megabytes) / 1024, figures))


def compare(part: str, path: Path, rounds: int) -> float:
    """Prints the figures of a part; returns the median ratio of seconds."""
    costs: dict[bool, list[np.ndarray]] = {True: [], False: []}
    figures = {}
    for _ in range(rounds):
        for ours in costs:
            receiver, sender = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.get_context('spawn').Process(
                target=measure, args=(part, ours, path, sender)
            )
            process.start()
            sender.close()
            *cost, figures[ours] = receiver.recv()
            process.join()
            costs[ours].append(np.array(cost))
    difference = float(np.abs(figures[True] - figures[False]).max())
    for name, ours in zip(PARTS[part], costs):
        seconds, memory = np.array(costs[ours]).T
        print(
            f'{name:24s}{np.median(seconds):8.2f} s of CPU ({seconds.min():.2f} to '
            f'{seconds.max():.2f}), {np.median(memory):.2f} GiB'
        )
    ratios, memory = (np.array(costs[False]) / np.array(costs[True])).T
    precision = figures[True][-12 if part == 'evaluator' else 0]
    print(
        f'{part}: {np.median(ratios):.1f} times as fast ({ratios.min():.1f} to '
        f'{ratios.max():.1f}), {np.median(memory):.1f} times less memory; '
        f'{figures[True].size} figures differ by {difference:.1e} at most, AP {precision:.4f}',
        flush=True,
    )
    if not difference < 1e-9:
        raise CASTError(f'{part}: the figures are not the same')
    return float(np.median(ratios))


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--images', type=int, default=5000)
    parser.add_argument('--detections', type=int, default=100, help='on each image')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--least', type=float, default=5, help='ratio (5)')
    args = parser.parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'masks.pkl')
        path.write_bytes(pickle.dumps(make(args.images, args.detections)))
        print(f'{args.images} images with {args.detections} masks each', flush=True)
        ratios = {part: compare(part, path, args.rounds) for part in args.parts}
    slow = [part for part, ratio in ratios.items() if ratio < args.least]
    if slow:
        raise CASTError(f'less than {args.least} times as fast: {", ".join(slow)}')


if __name__ == '__main__':
    main()
