"""The full-size student compared with Mask2Former and Mask R-CNN with ResNet-50, all in one run;
prints the ratios.

    python benchmarks/student_speed.py --threads 2

Weights are random: speed does not depend on them, as every model is made to segment 100 instances.
The student is exported to ONNX first, in fp32 and with 8-bit weights.
"""

import argparse
import copy
import json
import logging
from pathlib import Path

from mmcast.cli.errors import report_errors

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
BASELINES = dict(mask2former='mask2former_r50.py', mask_rcnn='mask_rcnn_r50.py')


def export(folder: Path, precisions: list[str], attention: str) -> list[str]:
    """Entries of the student, random weights, as checkpoint and ONNX files; made if missing."""
    import torch

    from mmcast.deploy import onnx_export
    from mmcast.deploy.export import build_network, load_config
    from mmcast.files import write_atomically
    from mmcast.models.weights.reading import read_state_dict, write_state_dict

    config, weights = CONFIGS / '_base_/models/cast_student.py', folder / 'student.pth'
    cfg = load_config(config)
    torch.manual_seed(0)
    network = build_network(cfg).detector
    if not weights.exists():
        network.init_weights()
        write_state_dict(weights, network.state_dict())
    entries = [f'student={config},{weights}']
    graph = None
    for precision in precisions:
        path = folder / f'student_{precision}_{attention}.onnx'
        if not path.exists():
            if graph is None:
                network.load_state_dict(read_state_dict(weights))
                graph = onnx_export.to_onnx(network, attention)
            finished = copy.deepcopy(graph)
            onnx_export.finish_graph(
                finished,
                dict(
                    classes=[str(number) for number in range(8)],
                    score_threshold=0.0,
                    resize=None,
                    precision=precision,
                ),
            )
            partial = path.with_suffix('.partial')
            onnx_export.write(finished, partial, precision)
            write_atomically(path, partial.read_bytes())
            partial.unlink()
        entries.append(f'student={path}')
    return entries


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
        '--precisions', nargs='+', choices=['fp32', 'fp16', 'int8'], default=['fp32', 'int8']
    )
    parser.add_argument(
        '--attention',
        choices=['standard', 'onnxruntime'],
        default='onnxruntime',
        help='of the ONNX files: standard operators, or the one of onnxruntime',
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/student_speed'))
    args = parser.parse_args()
    from mmcast.deploy.benchmarking import Setting, benchmark, parse_entries, to_markdown

    logging.disable(logging.INFO)  # MMEngine logs how it initialises every parameter
    entries = export(args.out, args.precisions, args.attention)
    entries += [f'{name}={CONFIGS / "benchmarks" / file}' for name, file in BASELINES.items()]
    setting = Setting(tuple(args.size), runs=args.runs, warmup=1, threads=args.threads)
    rows = benchmark(
        parse_entries(entries, args.backends), setting, show=lambda line: print(line, flush=True)
    )
    text = to_markdown(rows, setting)
    print(text)
    found = {
        (row['name'], row['backend'], row['precision']): row for row in rows if 'problem' not in row
    }
    eager = found['student', 'eager', 'fp32']
    for key, row in found.items():
        faster = eager['latency_ms']['median'] / row['latency_ms']['median']
        print(
            f'{" ".join(key)}: {faster:.2f} x the FPS of the student in torch eager, '
            f'{eager["cpu_s"] / row["cpu_s"]:.2f} x in processor time'
        )
    (args.out / 'speed.json').write_text(json.dumps(rows, indent=1))
    (args.out / 'speed.md').write_text(text)


if __name__ == '__main__':
    main()
