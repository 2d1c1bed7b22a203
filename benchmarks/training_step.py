"""Training steps of the student per second, against mmdet's Mask2Former head on the same modules
and batch.

    python benchmarks/training_step.py --student toy --threads 2

Both run the same encoder, pixel decoder, transformer decoder and assigner with the same weights;
what differs is how the head goes through them and takes its losses. At equal points the losses must
agree to 1e-4, which is checked. The two take turns; times are CPU seconds (on a GPU: seconds until
it is idle), medians. 'head' is from the pixel decoder's output to its gradient: transformer
decoder, matching, losses. Then the whole step of CASTDetector, with and without the pixel loss (its
strong pass included).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmdet.models.dense_heads import Mask2FormerHead
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from mmcast.cli.errors import report_errors
from mmcast.registry import MODELS
from mmcast.testing.data import make_samples, same_points

MODELS_DIR = Path(__file__).parents[1] / 'configs/_base_/models'
STUDENTS = dict(
    toy=(MODELS_DIR / 'toy_student.py', (112, 224)),
    full=(MODELS_DIR / 'cast_student.py', (518, 1036)),
)


class Head:
    """The part of a student that is compared: mmdet's way or ours through the same modules."""

    def __init__(self, student, samples, stock: bool) -> None:
        self.head, self.samples, self.stock = student.panoptic_head, samples, stock

    def losses(self, features: list[Tensor]) -> dict[str, Tensor]:
        cls = Mask2FormerHead if self.stock else type(self.head)
        gt = cls.preprocess_gt(
            self.head, [s.gt_instances for s in self.samples], [None] * len(self.samples)
        )
        if self.stock:
            outputs = cls.forward(self.head, features, self.samples)
        else:
            outputs = self.head.decode(*self.head.pixel_decoder(features))
        losses = cls.loss_by_feat(self.head, *outputs, gt, [s.metainfo for s in self.samples])
        return {name: loss.squeeze() for name, loss in losses.items()}


def seconds(function: Callable[[], object], device: str) -> float:
    clock = time.process_time if device == 'cpu' else time.perf_counter
    start = clock()
    function()
    if device != 'cpu':
        torch.cuda.synchronize()
    return clock() - start


def compare(
    functions: dict[str, Callable[[], object]], repeats: int, device: str
) -> dict[str, float]:
    """Median seconds of each, in turns, after one round to warm up."""
    times = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            spent = seconds(function, device)
            if turn:
                times[name].append(spent)
    return {name: statistics.median(values) for name, values in times.items()}


def check_equal(heads: dict[str, Head], features: list[Tensor]) -> float:
    """The largest difference of a loss, relative to mmdet's."""
    with same_points():
        ours, theirs = (heads[name].losses(features) for name in ('mmcast', 'mmdet'))
    difference = max(float(abs(ours[name] - theirs[name]) / abs(theirs[name])) for name in theirs)
    if difference > 1e-4:
        raise AssertionError(f'losses differ by {difference:.1e}')
    return difference


def head_alone(student, head: Head, features: list[Tensor]) -> Callable[[], object]:
    """The head's step on the pixel decoder's outputs, made once."""
    with torch.no_grad():
        mask_features, memories = student.panoptic_head.pixel_decoder(features)
    leaves = [t.requires_grad_() for t in (mask_features, *memories)]

    def step():
        decoder = student.panoptic_head.pixel_decoder
        decoder.forward = lambda _: (leaves[0], leaves[1:])
        try:
            sum(head.losses(features).values()).backward()
        finally:
            del decoder.forward

    return step


def show(title: str, times: dict[str, float], baseline: str) -> None:
    print(title)
    for name, spent in times.items():
        print(
            f'  {name:24s}{spent:8.3f} s{times[baseline] / spent:8.2f} x the throughput of '
            f'{baseline}',
            flush=True,
        )


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--student', choices=STUDENTS, default='toy')
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='of the images'
    )
    parser.add_argument('--batch', type=int, default=6)
    parser.add_argument('--objects', type=int, default=8, help='objects per image')
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    init_default_scope('mmcast')
    path, size = STUDENTS[args.student]
    config = Config.fromfile(path)
    torch.manual_seed(0)
    pixel_contrast = config.model.get('pixel_contrast') or dict(in_channels=384)
    detector = (
        MODELS.build(dict(config.model, pixel_contrast=pixel_contrast)).to(args.device).train()
    )
    student = detector.detector
    images, samples = make_samples(
        [args.objects] * args.batch, size=tuple(args.size or size), num_classes=8
    )
    images, samples = images.to(args.device), [sample.to(args.device) for sample in samples]
    heads = {name: Head(student, samples, name == 'mmdet') for name in ('mmdet', 'mmcast')}

    with torch.no_grad():
        features = [f.detach() for f in student.extract_feat(images)]
    difference = check_equal(heads, features)
    print(
        f'{path.name}, {args.batch} images of {images.shape[2]}x{images.shape[3]} with '
        f'{args.objects} objects, {args.device}, {args.threads} threads; losses differ by '
        f'{difference:.1e}'
    )
    show(
        'head',
        compare(
            {name: head_alone(student, head, features) for name, head in heads.items()},
            args.repeats,
            args.device,
        ),
        'mmdet',
    )
    show(
        'step of the student',
        compare(
            {
                name: lambda head=head: sum(
                    head.losses(student.extract_feat(images)).values()
                ).backward()
                for name, head in heads.items()
            },
            args.repeats,
            args.device,
        ),
        'mmdet',
    )

    contrast = detector.pixel_contrast

    def cast_step(part) -> Callable[[], object]:
        def step():
            detector.pixel_contrast = part
            sum(detector.loss(images, samples).values()).backward()

        return step

    times = compare(
        {'without the pixel loss': cast_step(None), 'with it': cast_step(contrast)},
        args.repeats,
        args.device,
    )
    show('step of CASTDetector', times, 'without the pixel loss')
    print(
        '  the pixel loss adds '
        f'{100 * (times["with it"] / times["without the pixel loss"] - 1):.0f} %'
    )


if __name__ == '__main__':
    main()
