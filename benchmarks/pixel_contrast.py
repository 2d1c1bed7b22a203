"""Time and peak memory of the pixel loss, forward and backward, against the dense formulation of
the paper.

    python benchmarks/pixel_contrast.py --threads 2
    python benchmarks/pixel_contrast.py --noise     # of the gradient, sampled against expected,
    instead

Every figure is of a process of its own: CPU and wall seconds of the fastest of some calls, peak of
the resident memory above what the process held with its inputs before the first call. The dense
formulation makes the matrix of scores of all pixels by all pixels, samples by Gumbel top-R as the
authors do, and takes the similarities from a second such matrix; 'multinomial' samples from the
same matrix with replacement, as we do. The scene: rectangles, one query each, of different classes,
on a background that a query claims too.
"""

import argparse
import json
import multiprocessing
import re
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcast.cli.errors import report_errors
from mmcast.models.losses.pixel_contrastive_loss import PixelContrastiveLoss

PAPER = dict(batch=8, height=19, width=37)  # 512 x 1024 pixels at stride 28


def make_inputs(
    batch: int,
    height: int,
    width: int,
    mask_scale: int = 1,
    dims: int = 128,
    queries: int = 100,
    classes: int = 8,
) -> dict[str, Tensor]:
    """Random embeddings and a network's confident output on `queries` / 5 rectangles per image."""
    generator = torch.Generator().manual_seed(0)
    size = height * mask_scale, width * mask_scale
    owner = torch.zeros(batch, *size, dtype=torch.long)
    for image in owner:
        for query in range(1, queries // 5):
            top, left = (int(torch.randint(side, (), generator=generator)) for side in size)
            image[top : top + size[0] // 3, left : left + size[1] // 6] = query
    masks = torch.randn(batch, queries, *size, generator=generator)
    masks.scatter_add_(1, owner[:, None], torch.full((batch, 1, *size), 6.0))
    z_weak, z_strong = (
        torch.randn(batch, dims, height, width, generator=generator) for _ in range(2)
    )
    return dict(
        z_weak=z_weak.requires_grad_(),
        z_strong=z_strong.requires_grad_(),
        mask_logits=masks,
        class_logits=4 * torch.randn(batch, queries, classes + 1, generator=generator),
    )


def dense_loss(
    z_weak: Tensor,
    z_strong: Tensor,
    mask_logits: Tensor,
    class_logits: Tensor,
    num_negatives: int = 200,
    temperature: float = 0.3,
    gumbel: bool = True,
) -> Tensor:
    """The formulas of the paper, one after the other, on whole matrices."""
    with torch.no_grad():
        mask = (mask_logits / 0.5).softmax(1)
        mask = F.interpolate(mask, z_weak.shape[-2:], mode='bilinear', antialias=True)
        expected_class = torch.einsum('bkhw,bkc->bchw', mask, class_logits.softmax(-1))
        y = torch.cat([mask, expected_class], dim=1).permute(0, 2, 3, 1).flatten(0, 2)
        y = F.normalize(y, dim=1)
        scores = (1 - y @ y.T).clamp_min(0).fill_diagonal_(0)
        if gumbel:
            drawn = (
                (scores.log() - torch.empty_like(scores).exponential_().log())
                .topk(num_negatives)
                .indices
            )
        else:
            drawn = torch.multinomial(scores, num_negatives, replacement=True)
    weak, strong = (
        F.normalize(z.permute(0, 2, 3, 1).flatten(0, 2), dim=1) for z in (z_weak, z_strong)
    )
    positive = (weak * strong).sum(1, keepdim=True) / temperature
    negative = (weak @ weak.T).gather(1, drawn) / temperature
    return (torch.cat([positive, negative], dim=1).logsumexp(1) - positive[:, 0]).mean()


def losses(anchors: int | None) -> dict:
    """What can be measured, by name."""
    return dict(
        dense=dense_loss,
        multinomial=lambda **inputs: dense_loss(**inputs, gumbel=False),
        drawn=PixelContrastiveLoss(num_anchors=anchors),
        expected=PixelContrastiveLoss(num_anchors=anchors, negatives='expected'),
    )


def memory(field: str) -> int:
    """A figure of /proc/self/status in bytes: VmRSS, what is held now; VmHWM, the most that was."""
    return int(re.search(rf'{field}:\s+(\d+) kB', Path('/proc/self/status').read_text())[1]) * 1024


def call(loss, inputs: dict[str, Tensor]) -> None:
    torch.autograd.grad(loss(**inputs), [inputs['z_weak'], inputs['z_strong']])


def measure(
    name: str, shape: dict, anchors: int | None, repeats: int, threads: int
) -> dict[str, float]:
    """Runs in a fresh process: seconds of the fastest call, megabytes of the first."""
    torch.set_num_threads(threads)
    loss = losses(anchors)[name]
    call(losses(None)[name], make_inputs(2, 12, 12, queries=10))  # libraries load on first use
    inputs = make_inputs(**shape)
    Path('/proc/self/clear_refs').write_text('5')  # the peak starts anew
    before = memory('VmRSS')
    call(loss, inputs)
    peak = memory('VmHWM') - before
    cpu, wall = [], []
    for _ in range(repeats):
        starts = time.process_time(), time.perf_counter()
        call(loss, inputs)
        cpu.append(time.process_time() - starts[0])
        wall.append(time.perf_counter() - starts[1])
    return dict(mb=peak / 1e6, cpu=min(cpu), wall=min(wall))


def in_fresh_process(*args) -> dict[str, float]:
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(measure, args)


def show(title: str, rows: dict[str, dict[str, float]], baseline: str) -> None:
    print(
        f'\n{title}\n{"":14s}{"wall s":>9s}{"CPU s":>9s}{"peak MB":>9s}   ratios to {baseline}: '
        'CPU, memory'
    )
    for name, row in rows.items():
        ratios = '  '.join(f'{row[key] / rows[baseline][key]:.3f}' for key in ('cpu', 'mb'))
        print(
            f'{name:14s}{row["wall"]:9.3f}{row["cpu"]:9.3f}{row["mb"]:9.1f}   {ratios}', flush=True
        )


def gradient_noise(num_negatives: int, temperature: float, calls: int = 20) -> dict[str, float]:
    """Of the gradient with sampled negatives, B 2, 19x37, as fractions of the squared length of its
    mean.

    ``noise`` is the variance of one call, ``bias`` the squared distance of the expected form's
    gradient from the mean of the calls, less what the variance of that mean explains.
    """
    torch.manual_seed(0)
    inputs = make_inputs(2, 19, 37)
    options = dict(num_negatives=num_negatives, temperature=temperature)

    def gradient(**more) -> Tensor:
        loss = PixelContrastiveLoss(**options, **more)
        return torch.autograd.grad(loss(**inputs), inputs['z_weak'])[0].double()

    drawn = torch.stack([gradient() for _ in range(calls)])
    mean = drawn.mean(0)
    noise = (drawn - mean).square().sum() / (calls - 1) / mean.square().sum()
    distance = (gradient(negatives='expected') - mean).square().sum() / mean.square().sum()
    return dict(noise=float(noise), bias=float((distance - noise / calls).clamp_min(0)))


def show_noise() -> None:
    print(
        'variance of the gradient of z_weak with sampled negatives, squared bias of the expected '
        'form,\nas fractions of the squared length of the mean gradient; B 2, 19x37, all pixels '
        'anchors'
    )
    for temperature in (0.3, 0.07):
        for num_negatives in (20, 200, 2000):
            found = gradient_noise(num_negatives, temperature)
            print(
                f'  T {temperature:4}  R {num_negatives:5}  noise {found["noise"]:.2e}  bias '
                f'{found["bias"]:.2e}',
                flush=True,
            )


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument(
        '--repeats', type=int, default=3, help='calls after the one whose memory counts'
    )
    parser.add_argument(
        '--skip-dense', action='store_true', help='only how the cost grows with the pixels'
    )
    parser.add_argument(
        '--noise', action='store_true', help='measure the noise of the gradient instead'
    )
    parser.add_argument('--json', type=Path, help='also write the figures here')
    args = parser.parse_args()
    if args.noise:
        torch.set_num_threads(args.threads)
        show_noise()
        return
    run = dict(repeats=args.repeats, threads=args.threads).values()

    results = {}
    for scale in () if args.skip_dense else (1, 8):
        title = f'B 8, 19x37, D 128, R 200, K 100, C 8; mask logits {19 * scale}x{37 * scale}'
        results[title] = {
            name: in_fresh_process(name, dict(PAPER, mask_scale=scale), None, *run)
            for name in ('dense', 'multinomial', 'drawn', 'expected')
        }
        show(title, results[title], 'dense')
    title = 'four times the pixels, B 4, 4,096 anchors per image, R 200'
    shapes = {f'{h}x{2 * h}': dict(batch=4, height=h, width=2 * h) for h in (64, 128)}
    results[title] = {
        size: in_fresh_process('drawn', shape, 4 * 4096, *run) for size, shape in shapes.items()
    }
    show(title, results[title], '64x128')
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == '__main__':
    main()
