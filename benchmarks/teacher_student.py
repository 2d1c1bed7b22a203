"""Teacher and student on one GPU in one run: latency, images per second, memory; eager, bf16, batch
1.

    python benchmarks/teacher_student.py                       # predictions of 1024x2048 images,
    and the ratio python benchmarks/teacher_student.py --train               # and a training step
    of 1a, 1b, transfer and refine

Weights are random: none of the figures depends on them but the number of boxes, so the teacher
keeps --boxes of them in every image. Teacher and student take turns. The paper's ratio is 4.56
(2.85 and 13.0 images per second).
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from mmcast.cli.errors import report_errors
from mmcast.errors import CASTError

STEPS = {
    '1a': 'cityscapes_teacher_adapt_labeled',
    '1b': 'cityscapes_teacher_adapt_self_training',
    'transfer': 'cityscapes_student_transfer',
    'refine': 'cityscapes_student_refine',
}
PAPER = 4.56


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--size', nargs=2, type=int, default=[1024, 2048], metavar=('HEIGHT', 'WIDTH')
    )
    parser.add_argument(
        '--boxes', type=int, default=20, help='boxes that prompt SAM2 in an image (20)'
    )
    parser.add_argument('--rounds', type=int, default=30)
    parser.add_argument('--train', action='store_true', help='also the memory of training steps')
    parser.add_argument('--batch', type=int, default=2, help='images of a training step (2)')
    parser.add_argument('--device', default='cuda')
    args = parser.parse_args()

    import torch

    if args.device == 'cuda' and not torch.cuda.is_available():
        raise CASTError(
            'no CUDA device: run this on a machine with a GPU, or try it with --device cpu'
        )
    with tempfile.TemporaryDirectory() as folder:
        predict(args, folder)
        if args.train:
            for step, config in STEPS.items():
                train(args, folder, step, config)


def build(config_name: str, folder: str, boxes: int):
    """The model of a Cityscapes step with random weights."""
    import torch
    from mmengine.config import Config
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    from mmcast.registry import MODELS
    from mmcast.testing.teacher import write_tiny_bert

    MMLogger.get_current_instance().setLevel('WARNING')  # the optimizer's line for every parameter
    init_default_scope('mmcast')
    torch.manual_seed(0)
    config = Config.fromfile(f'configs/cityscapes/{config_name}.py')
    detector = config.model.detector
    if detector.type == 'GroundedSAM':
        Path(write_tiny_bert(folder), 'config.json').unlink()  # bert-base is the default
        detector.grounding_dino.language_model.name = folder
        detector.grounding_dino.test_cfg.update(score_thr=0.0, max_per_img=boxes)
    else:
        detector.backbone.init_cfg = None
    return config, MODELS.build(config.model)


def predict(args: argparse.Namespace, folder: str) -> None:
    """Latency, images per second and peak memory of both, and the ratio."""
    import torch
    from mmdet.structures import DetDataSample

    models = {
        name: build(STEPS[step], folder, args.boxes)[1].eval()
        for name, step in (('teacher', '1a'), ('student', 'refine'))
    }
    image = torch.randint(0, 256, (3, *args.size), dtype=torch.uint8)

    def once(model):
        sample = DetDataSample(
            metainfo=dict(img_shape=tuple(args.size), ori_shape=tuple(args.size))
        )
        with torch.no_grad(), torch.autocast(args.device, torch.bfloat16):
            model.test_step(dict(inputs=[image], data_samples=[sample]))

    times, memory = {name: [] for name in models}, {}
    for name, model in models.items():  # alone on the device
        model.to(args.device)
        once(model)
        memory[name] = peak_memory(args.device, lambda model=model: once(model))
        model.to('cpu')
    for model in models.values():
        model.to(args.device)
        for _ in range(3):
            once(model)
    for _ in range(args.rounds):
        for name, model in models.items():
            times[name].append(seconds(args.device, lambda model=model: once(model)))
    print(
        f'{args.size[0]}x{args.size[1]}, batch 1, bf16, {args.boxes} boxes per image, '
        f'{args.rounds} rounds'
    )
    for name in models:
        median = statistics.median(times[name])
        print(
            f'{name:8s}{1000 * median:9.1f} ms ({1000 * min(times[name]):.1f} to '
            f'{1000 * max(times[name]):.1f}){1 / median:9.2f} images/s   peak {memory[name]:.2f} GB'
        )
    ratios = [teacher / student for teacher, student in zip(times['teacher'], times['student'])]
    print(
        f'ratio   {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); '
        f"the paper's is {PAPER}"
    )


def train(args: argparse.Namespace, folder: str, step: str, config_name: str) -> None:
    """Peak memory of one step: forward, backward and AdamW, at the size of the recipe's input."""
    import torch
    from mmengine.optim import build_optim_wrapper

    from mmcast.testing.data import make_samples
    from mmcast.training.runner import use_full_precision

    config, model = build(config_name, folder, args.boxes)
    model = model.train().to(args.device)
    use_full_precision(config.optim_wrapper)  # the autocast is here
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    size = tuple(args.size) if step in ('1a', '1b') else (args.size[0] // 2, args.size[1] // 2)
    sources = (
        ['labeled', 'pseudo'] * args.batch
        if 'semi_train_cfg' in config.model
        else ['labeled'] * args.batch
    )
    images, samples = make_samples(
        [args.boxes] * args.batch, sources[: args.batch], size=size, num_classes=8
    )
    inputs = list((images * 50 + 120).clamp(0, 255).byte())

    def once():
        data = model.data_preprocessor(
            dict(inputs=inputs, data_samples=[sample.clone() for sample in samples]), True
        )
        with torch.autocast(args.device, torch.bfloat16):
            total, _ = model.parse_losses(model(**data, mode='loss'))
        wrapper.update_params(total)

    once()
    memory = peak_memory(args.device, once)
    print(
        f'{step:9s}{args.batch} images of {size[0]}x{size[1]}: {seconds(args.device, once):6.2f} s '
        f'a step, peak {memory:.2f} GB'
    )
    if args.device == 'cuda':
        torch.cuda.empty_cache()


def seconds(device: str, function) -> float:
    """Wall time of a call, what it started on the device included."""
    import time

    import torch

    start = time.perf_counter()
    function()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(device: str, function) -> float:
    """Largest allocated memory of the device during a call, in GB; 0 on the CPU."""
    import torch

    if device != 'cuda':
        function()
        return 0.0
    torch.cuda.reset_peak_memory_stats()
    function()
    return torch.cuda.max_memory_allocated() / 2**30


if __name__ == '__main__':
    main()
