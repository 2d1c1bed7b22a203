"""The full-size student and ``cast_lite``, in torch and exported, compared with Mask2Former and
Mask R-CNN with ResNet-50 and with RF-DETR-Seg-Nano, all in one run; prints the ratios.

    python benchmarks/student_speed.py --threads 2

Weights are random: speed does not depend on them, as every model is made to segment 100 instances.
The students are exported to ONNX first, in fp32 and with 8 bits. RF-DETR-Seg-Nano is transformers'
network with the settings that its makers publish, exported with the same preparation of images and
the same resizing of masks.
"""

import argparse
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmcast.cli.errors import report_errors

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
STUDENTS = dict(student='cast_student.py', lite='cast_lite.py')
BASELINES = dict(mask2former='mask2former_r50.py', mask_rcnn='mask_rcnn_r50.py')
PRECISIONS = ('fp32', 'fp16', 'int8', 'static_int8')
# What the ratios of the issue are taken of: name, what is compared and its baseline, by the name of
# the model, backend and precision.
RATIOS = (
    ('lite', ('lite', 'eager', 'fp32'), ('student', 'eager', 'fp32')),
    ('lite, onnxruntime', ('lite', 'onnx', 'fp32'), ('student', 'onnx', 'fp32')),
    ('lite, onnxruntime, RF-DETR', ('lite', 'onnx', 'fp32'), ('rf_detr_seg_nano', 'onnx', 'fp32')),
    ('student, int8', ('student', 'onnx', 'int8'), ('student', 'eager', 'fp32')),
    ('student, static int8', ('student', 'onnx', 'static_int8'), ('student', 'eager', 'fp32')),
    ('lite, static int8', ('lite', 'onnx', 'static_int8'), ('lite', 'onnx', 'fp32')),
)


def export(folder: Path, name: str, precisions: Sequence[str], attention: str) -> list[str]:
    """Entries of a student, random weights, as checkpoint and ONNX files; made if missing."""
    import torch

    from mmcast.configs import load_config
    from mmcast.deploy import onnx_export
    from mmcast.deploy.benchmarking import without_files
    from mmcast.deploy.export import build_network
    from mmcast.models.weights.reading import read_state_dict, write_state_dict

    config, weights = CONFIGS / '_base_/models' / STUDENTS[name], folder / f'{name}.pth'
    torch.manual_seed(0)
    network = without_files(build_network(load_config(config)).detector)
    if not weights.exists():
        network.init_weights()
        write_state_dict(weights, network.state_dict())
    entries, graph = [f'{name}={config},{weights}'], None
    for precision in precisions:
        path = folder / f'{name}_{precision}_{attention}.onnx'
        if not path.exists():
            if graph is None:
                network.load_state_dict(read_state_dict(weights))
                graph = onnx_export.to_onnx(network, attention)
            write(graph, path, precision)
        entries.append(f'{name}={path}')
    return entries


def write(graph: Any, path: Path, precision: str) -> None:
    """A copy of a graph in one of :data:`PRECISIONS`."""
    from mmcast.deploy import onnx_export
    from mmcast.deploy.quantization import quantize
    from mmcast.files import replacing

    model = type(graph)()
    model.CopyFrom(graph)
    types = [*model.graph.value_info]
    classes = [str(number) for number in range(8)]
    facts = dict(classes=classes, score_threshold=0.0, resize=None, precision=precision)
    onnx_export.finish_graph(model, facts)
    with replacing(path, '.onnx') as temporary:
        if precision == 'static_int8':
            model.graph.value_info.extend(types)
            ranges = path.with_suffix('.ranges.json')
            with onnx_export.quiet():
                quantize(model, temporary, noise(), ranges)
        else:
            onnx_export.write(model, temporary, precision)


def noise() -> Iterator[dict[str, np.ndarray]]:
    """Two images to calibrate with."""
    generator = np.random.default_rng(0)
    for _ in range(2):
        images = generator.integers(0, 256, (1, 512, 1024, 3), dtype=np.uint8)
        yield dict(images=images, score_threshold=np.array(1, np.float32))


def export_rf_detr(folder: Path, size: Sequence[int]) -> str:
    """The entry of RF-DETR-Seg-Nano at one size of images; made if missing."""
    import torch
    import torch.nn.functional as F
    from transformers import RfDetrConfig, RfDetrForInstanceSegmentation

    from mmcast.deploy.exportable import boxes_from_sums, full_size_masks, mean_probability
    from mmcast.deploy.onnx_export import INPUTS, count_faster, quiet
    from mmcast.deploy.onnx_files import OUTPUTS

    path = folder / f'rf_detr_seg_nano_{size[0]}x{size[1]}.onnx'
    if path.exists():
        return f'rf_detr_seg_nano={path}'
    patch = 12
    encoder = dict(
        model_type='rf_detr_dinov2',
        hidden_size=384,
        num_attention_heads=6,
        num_hidden_layers=12,
        patch_size=patch,
        num_windows=1,
        image_size=312,
        out_features=['stage3', 'stage6', 'stage9', 'stage12'],
    )
    config = RfDetrConfig(
        backbone_config=encoder,
        num_queries=100,
        decoder_layers=4,
        decoder_n_points=2,
        num_labels=8,
    )

    class Exportable(torch.nn.Module):
        """Images to instances, as of a student."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.network = RfDetrForInstanceSegmentation(config).eval()

        def forward(self, images: torch.Tensor, threshold: torch.Tensor) -> tuple:
            padded = [math.ceil(side / patch) * patch for side in size]
            pixels = images.permute(0, 3, 1, 2).flatten(2).float().unflatten(2, tuple(size))
            surplus = (0, padded[1] - size[1], 0, padded[0] - size[0])
            found = self.network(pixel_values=F.pad((pixels - 116) / 57, surplus))
            scores, labels = found.logits[0].sigmoid().max(-1)
            masks, areas, sums = full_size_masks(found.pred_masks[0], padded, size)
            scores = scores * mean_probability(areas, sums)[:-1]
            (kept,) = torch.nonzero(scores > threshold, as_tuple=True)
            boxes = boxes_from_sums(areas, sums)
            return boxes[kept], masks[kept], scores[kept], labels[kept], torch.zeros_like(kept)

    example = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8)
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            Exportable(),
            (example, torch.tensor(0.0)),
            dynamo=True,
            opset_version=20,
            verbose=False,
            input_names=INPUTS,
            output_names=OUTPUTS,
        )
    count_faster(program.model_proto)
    write(program.model_proto, path, 'fp32')
    return f'rf_detr_seg_nano={path}'


def print_ratios(rows: Mapping[tuple[str, str, str], dict]) -> None:
    """Ratios of speed with the range of the single turns, and of operations and memory."""
    for title, ours, theirs in RATIOS:
        if not {ours, theirs} <= rows.keys():
            continue
        one, other = rows[ours], rows[theirs]
        turns = np.divide(other['runs'], one['runs'])  # (turns, 2): seconds, processor seconds
        low, high = turns.min(0), turns.max(0)
        wall, cpu = np.median(turns, 0)
        print(
            f'{title}: {wall:.2f} x the FPS of {" ".join(theirs)} ({low[0]:.2f} to {high[0]:.2f}), '
            f'{cpu:.2f} x in processor time ({low[1]:.2f} to {high[1]:.2f}); memory '
            f'{one["peak_memory_mb"]} and {other["peak_memory_mb"]} MB'
        )
        if one['flops'] and other['flops']:
            print(f'    operations: 1/{other["flops"]["total"] / one["flops"]["total"]:.1f}')


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--size', nargs=2, type=int, default=[512, 1024], metavar=('H', 'W'))
    parser.add_argument('--runs', type=int, default=10)
    parser.add_argument('--threads', type=int, default=0)
    parser.add_argument('--backends', nargs='+', choices=['eager', 'compiled'], default=['eager'])
    parser.add_argument(
        '--precisions', nargs='+', choices=PRECISIONS, default=['fp32', 'int8', 'static_int8']
    )
    parser.add_argument(
        '--attention',
        choices=['standard', 'onnxruntime'],
        default='onnxruntime',
        help='of the full-size ONNX files: standard operators, or the one of onnxruntime',
    )
    parser.add_argument(
        '--without', nargs='+', default=[], metavar='MODEL', help='mask2former, rf_detr_seg_nano...'
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/student_speed'))
    args = parser.parse_args()
    from mmcast.deploy.benchmarking import Setting, benchmark, parse_entries, to_markdown

    logging.disable(logging.INFO)  # MMEngine logs how it initialises every parameter
    args.out.mkdir(parents=True, exist_ok=True)
    entries = []
    for name, attention in (('student', args.attention), ('lite', 'standard')):
        if name not in args.without:
            entries += export(args.out, name, args.precisions, attention)
    if 'rf_detr_seg_nano' not in args.without:
        entries.append(export_rf_detr(args.out, args.size))
    entries += [
        f'{name}={CONFIGS / "benchmarks" / file}'
        for name, file in BASELINES.items()
        if name not in args.without
    ]
    setting = Setting(tuple(args.size), runs=args.runs, warmup=1, threads=args.threads)
    rows = benchmark(
        parse_entries(entries, args.backends), setting, show=lambda line: print(line, flush=True)
    )
    text = to_markdown(rows, setting)
    print(text)
    found = {
        (row['name'], row['backend'], row['precision']): row for row in rows if 'problem' not in row
    }
    print_ratios(found)
    (args.out / 'speed.json').write_text(json.dumps(rows, indent=1))
    (args.out / 'speed.md').write_text(text)


if __name__ == '__main__':
    main()
