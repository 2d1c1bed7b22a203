"""The foundation teacher in full size on the CPU: its parameters, and one image from file to masks.

    python benchmarks/teacher_cpu.py        # random weights, bert-base with a small vocabulary file
    python benchmarks/teacher_cpu.py --config configs/cityscapes/cityscapes_sam3_zero_shot.py
    python benchmarks/teacher_cpu.py --checkpoint work_dirs/cast_cityscapes/start/teacher.pth
    --language-model FOLDER

Random weights find nothing, so every box counts (score_thr=0) and 100 masks are made.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from mmcast.cli.errors import report_errors


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', default='configs/cityscapes/cityscapes_teacher_zero_shot.py')
    parser.add_argument(
        '--size', nargs=2, type=int, default=[512, 1024], metavar=('HEIGHT', 'WIDTH')
    )
    parser.add_argument(
        '--checkpoint', help='made by step `start` of a pipeline; default random weights'
    )
    parser.add_argument(
        '--language-model',
        help="folder of BERT, or of SAM3's tokenizer; default a small vocabulary",
    )
    args = parser.parse_args()

    import torch
    from mmdet.structures import DetDataSample
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mmcast.models.weights.loading import count_parameters, load_weights
    from mmcast.registry import MODELS
    from mmcast.testing.teacher import write_tiny_bert, write_tiny_clip

    init_default_scope('mmcast')
    torch.manual_seed(0)
    config = Config.fromfile(args.config).model
    is_sam3 = config.detector.type == 'SAM3'
    network = config.detector if is_sam3 else config.detector.grounding_dino
    network.test_cfg.score_thr = 0.0
    with tempfile.TemporaryDirectory() as folder:
        if is_sam3:
            network.tokenizer = args.language_model or write_tiny_clip(folder)
        else:
            if not args.language_model:
                Path(write_tiny_bert(folder), 'config.json').unlink()  # bert-base is the default
            network.language_model.name = args.language_model or folder
        start = time.perf_counter()
        model = MODELS.build(config).eval()
    if args.checkpoint:
        load_weights(model, args.checkpoint)
    built = time.perf_counter() - start
    count, published = count_parameters(model) / 1e6, 840 if is_sam3 else 560
    print(
        f'{count:.1f} M parameters, {100 * (count / published - 1):+.2f} % of {published} M; '
        f'built in {built:.0f} s, {peak_gigabytes():.1f} GB'
    )

    height, width = args.size
    sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)))
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.no_grad():
        found = model.test_step(dict(inputs=[image], data_samples=[sample]))[0].pred_instances
    print(
        f'{height}x{width}: {len(found)} instances, masks {tuple(found.masks.shape)}; '
        f'{time.perf_counter() - wall:.1f} s wall, {time.process_time() - cpu:.1f} s of CPU time '
        f'on {torch.get_num_threads()} threads, peak memory {peak_gigabytes():.1f} GB'
    )


def peak_gigabytes() -> float:
    """Largest resident memory of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == '__main__':
    main()
