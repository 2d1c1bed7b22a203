"""Images per second of the student's predictions, against mmdet's way through the same modules.

    python benchmarks/inference.py --student full --threads 2

The network runs as it is, but a network without training paints noise on every mask. So, unless
--noise asks for that, its masks are replaced by one rectangle per query, a few percent of the image
each, in both ways. The two take turns; CPU seconds (on a GPU: seconds until it is idle), medians.
What they predict is compared.
"""

import argparse
from pathlib import Path
from unittest import mock

import mmcast  # noqa: F401  isort: skip  before mmdet
import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.detectors import Mask2Former
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor
from training_step import compare, show

from mmcast.cli.errors import report_errors
from mmcast.models.student.lazy_masks import LazyMasks
from mmcast.registry import MODELS
from mmcast.testing.data import make_samples

MODELS_DIR = Path(__file__).parents[1] / 'configs/_base_/models'
STUDENTS = dict(
    toy=(MODELS_DIR / 'toy_student.py', (112, 224)),
    full=(MODELS_DIR / 'cast_student.py', (512, 1024)),
)


def rectangles(queries: int, size: tuple[int, int]) -> Tensor:
    """Mask logits (1, K, h, w), positive in one rectangle each."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.full((1, queries, *size), -6.0)
    for mask in logits[0]:
        top, left = (int(torch.randint(side * 3 // 4, (), generator=generator)) for side in size)
        mask[top : top + size[0] // 4, left : left + size[1] // 8] = 6
    return logits


def predictors(student, images: Tensor, samples: list, noise: bool) -> dict:
    """mmdet's prediction and ours, as functions without arguments."""
    head = student.panoptic_head
    decode = type(head).decode
    if not noise:
        masks = decode(head, *head.pixel_decoder(student.extract_feat(images)))[1]
        scene = rectangles(head.num_queries, masks.features.shape[-2:]).to(images.device)
        scene = scene.expand(len(images), -1, -1, -1)
        queries = torch.eye(head.num_queries, device=images.device).expand(1, len(images), -1, -1)

    def theirs(features, data_samples):
        classes, masks = Mask2FormerHead.forward(head, features, data_samples)
        return classes, masks if noise else [scene]

    def ours(*pixels, every_layer=True):
        classes, masks = decode(head, *pixels, every_layer)
        return classes, masks if noise else LazyMasks(queries, scene)

    def predict(cls):
        with torch.no_grad(), mock.patch.multiple(head, forward=theirs, decode=ours):
            return cls.predict(student, images, [sample.new() for sample in samples])

    return dict(mmdet=lambda: predict(Mask2Former), mmcast=lambda: predict(type(student)))


def check_equal(predict: dict) -> None:
    for ours, theirs in zip(predict['mmcast'](), predict['mmdet']()):
        ours, theirs = ours.pred_instances, theirs.pred_instances
        difference = float((ours.scores - theirs.scores).abs().max())
        pixels = int((ours.masks != theirs.masks).sum())
        print(
            f'  scores differ by {difference:.1e}, masks in {pixels} of {ours.masks.numel()} pixels'
        )
        if difference > 1e-4 or pixels > 1e-5 * ours.masks.numel():
            raise AssertionError('the predictions differ')


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--student', choices=STUDENTS, default='full')
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--scale', type=int, default=2, help='side of the original over the input')
    parser.add_argument(
        '--noise', action='store_true', help="keep the untrained network's own masks"
    )
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    init_default_scope('mmcast')
    path, size = STUDENTS[args.student]
    torch.manual_seed(0)
    student = MODELS.build(Config.fromfile(path).model.detector).to(args.device).eval()
    images, samples = make_samples([0] * args.batch, size=size)
    patch = student.backbone.patch_size
    images = F.pad(images, (0, -size[1] % patch, 0, -size[0] % patch)).to(args.device)
    for sample in samples:
        sample.set_metainfo(
            dict(
                batch_input_shape=tuple(images.shape[-2:]),
                ori_shape=tuple(args.scale * side for side in size),
            )
        )
    with torch.no_grad():
        predict = predictors(student, images, samples, args.noise)
        print(
            f'{path.name}, {args.batch} images of {size[0]}x{size[1]}, masks of '
            f'{args.scale * size[0]}x{args.scale * size[1]}, {student.panoptic_head.num_queries} '
            f'queries, {args.device}, {args.threads} threads'
        )
        check_equal(predict)
        head = student.panoptic_head
        network = dict(
            network=lambda: head.decode(*head.pixel_decoder(student.extract_feat(images)), False)
        )
        show('prediction', compare(predict | network, args.repeats, args.device), 'mmdet')


if __name__ == '__main__':
    main()
