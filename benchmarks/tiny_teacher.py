"""What adaptation does to the foundation teacher, in miniature on Toy Cityscapes, on a CPU.

    python benchmarks/tiny_teacher.py --work-dir work_dirs/tiny_teacher --seeds 0 1 2

A teacher of 5 M parameters learns on scenes of a clear day, which makes it the "foundation" model. Then it is
tested on the target domain as it is, after step 1a (10 % of the labels) and after step 1b (with its own
pseudo-labels), through the shipped configs with sizes, iterations and learning rates changed. A seed decides which
images are labeled, and the random numbers of 1a and 1b. Printed are mask AP, the loss at the beginning and at the
end of each step, and what the options that only a teacher of two halves has change in the labels of both
generations: SAM2 prompted again with its own mask, and scores that are products with SAM2's estimate of IoU and
the halves' agreement. Finished steps are kept.
"""
import argparse
import copy
import json
import statistics
from pathlib import Path

import mmcast  # noqa: F401  before anything imports mmdet
from mmcast.command_line import report_errors
from seeds import LABELS, collect, quality_in_percent, show

ADAPT = 'configs/cityscapes/cityscapes_teacher_adapt_{}.py'
#: Of the tests' tiny teacher: encoders that can learn something, and no map at stride 4, where most time would go.
LEARNS_IN_AN_HOUR = {
    'activation_checkpointing': False,
    'grounding_dino.box_scale': (224, 112),
    'grounding_dino.train_box_scales': [(224, 112)],
    'grounding_dino.num_queries': 60,
    'grounding_dino.num_feature_levels': 4,
    'grounding_dino.backbone': dict(embed_dims=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], out_indices=(1, 2, 3)),
    'grounding_dino.neck': dict(in_channels=[48, 96, 192], num_outs=4),
    'grounding_dino.encoder.layer_cfg.self_attn_cfg.num_levels': 4,
    'grounding_dino.decoder.layer_cfg.cross_attn_cfg.num_levels': 4,
    'sam2.image_size': 128,
    'sam2.boxes_per_chunk': 32,
    'sam2.encoder.hidden_size': 16,
}

#: Options of the detector for better labels (docs/pseudo_labels.md).
OPTIONS = {
    'plain': {},
    'prompted again': {'sam2.reprompts': 1},
    'score times mask quality': {'score_factors': ['mask_quality']},
    'score times agreement': {'score_factors': ['agreement']},
    'score times both': {'score_factors': ['mask_quality', 'agreement']},
}
STEPS = dict(ap='mask AP', ap50='AP50', first_loss='first loss', last_loss='last loss')


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/tiny_teacher'))
    parser.add_argument('--pretrain', type=int, default=4000, help='iterations on the source domain (4000)')
    parser.add_argument('--adapt', type=int, default=600, help='iterations of 1a and of 1b (600)')
    parser.add_argument('--images', type=int, nargs=2, default=[1000, 100], metavar=('SOURCE', 'TARGET'))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    args = parser.parse_args()

    from mmcast.datasets.toy_cityscapes import prepare
    folder = args.work_dir
    source = prepare(folder / 'source', percent=50, domain='source', num_train=args.images[0], num_val=10)
    target = prepare(folder / 'target', percent=10, num_train=args.images[1], num_val=60)
    steps, labels = {}, {}
    config = small_config(folder, 'labeled', args.pretrain, [source['train']], source, target)
    start = train(folder / 'pretrained', config)
    collect(steps, {'zero-shot': start}, STEPS)
    for seed in args.seeds:
        target = prepare(folder / 'target', seed=seed, percent=10, num_train=args.images[1], num_val=60)
        found = adapt(folder, args.adapt, target, start, seed)
        collect(steps, found[0], STEPS)
        collect(labels, found[1], LABELS)
    show('', steps, STEPS)
    show('pseudo-labels', labels, LABELS)


def adapt(folder: Path, iterations: int, data: dict, start: dict, seed: int) -> tuple[dict[str, dict], dict[str, dict]]:
    """Results of steps 1a and 1b of one seed, and the quality of both teachers' labels with each option."""
    steps, labels, out = {}, {}, folder / f'seed{seed}'
    ann_files = [data['labeled']]
    for step, kind in {'1a': 'labeled', '1b': 'self_training'}.items():
        config = small_config(folder, kind, iterations, ann_files, data, data, seed)
        steps[step] = train(out / kind, config, start)
        labels |= label_with_options(step, config, steps[step], out, data)
        ann_files = [data['labeled'], str(out / '1a_plain.json')]
    return steps, labels


def label_with_options(generation: str, config, teacher: dict, out: Path, data: dict) -> dict[str, dict]:
    """Quality in percent of a teacher's labels with each option, against the hidden ones."""
    from mmcast.pseudo_labels import generate_pseudo_labels
    from mmcast.pseudo_labels.inspection import inspect_pseudo_labels
    stores = {}
    for name, options in OPTIONS.items():
        title = f'{generation}, {name}'
        stores[title] = out / f'{generation}_{name.replace(" ", "_")}.json'
        changed = copy.deepcopy(config)
        changed.merge_from_dict({f'model.detector.{key}': value for key, value in options.items()})
        generate_pseudo_labels(changed, teacher['checkpoint'], stores[title], ann_file=data['unlabeled'],
                               img_dir=data['train_images'])
    report = inspect_pseudo_labels(stores, out / f'{generation}.html', hidden=data['train'],
                                   img_dir=data['train_images'])
    return quality_in_percent(report['stores'])


def small_config(folder: Path, kind: str, iterations: int, ann_files: list[str], data: dict, val: dict, seed: int = 0):
    """The shipped config of 1a or 1b for a tiny teacher and the toy's images."""
    from mmengine.config import Config

    from mmcast.testing import shrink_teacher, write_tiny_bert
    config = Config.fromfile(ADAPT.format(kind))
    words = sorted({word for name in config.metainfo.classes for word in name.split()})
    detector = shrink_teacher(config.model.detector, write_tiny_bert(folder / 'bert', words))
    config.model.detector = detector
    config.merge_from_dict({f'model.detector.{name}': value for name, value in LEARNS_IN_AN_HOUR.items()})
    loaders = config.train_dataloader, config.val_dataloader, config.test_dataloader
    for loader in loaders:
        loader.update(num_workers=0, persistent_workers=False)
    config.train_dataloader.batch_size = 4
    train = config.train_dataloader.dataset
    for part, ann_file in zip(train.get('datasets', [train]), ann_files, strict=True):
        part.update(data_root='', ann_file=ann_file, data_prefix=dict(img=data['train_images']))
    if 'datasets' in train:
        config.train_dataloader.sampler.batch_size = 4
    for loader, evaluator in zip(loaders[1:], (config.val_evaluator, config.test_evaluator)):
        loader.dataset.update(data_root='', ann_file=val['val'], data_prefix=dict(img=val['val_images']))
        loader.dataset.pipeline[1] = dict(type='Resize', scale_factor=1.0, keep_ratio=True)
        evaluator.ann_file = val['val']
    config.optim_wrapper.optimizer.lr = 2e-4
    config.optim_wrapper.clip_grad.max_norm = 1.0
    config.optim_wrapper.paramwise_cfg = dict(parts={'sam2.': dict(decay_norm_and_bias=False)})
    config.param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, by_epoch=False, begin=0)]
    config.train_cfg.update(max_iters=iterations, val_interval=iterations)
    config.default_hooks.checkpoint.interval = max(1, iterations // 4)
    config.default_hooks.logger.interval = max(1, iterations // 40)
    config.load_from = None
    config.randomness = dict(seed=seed)
    return config


def train(folder: Path, config, start: dict | None = None) -> dict:
    """Checkpoint, AP in percent and losses of one run; what an earlier call finished is read."""
    from mmcast.engine.curves import read_curves
    from mmcast.engine.runs import latest_sound_checkpoint, train_run
    out = folder / 'result.json'
    if out.exists():
        return json.loads(out.read_text())
    config.work_dir = str(folder)
    if start:
        config.load_from = start['checkpoint']
    else:
        config.model.pixel_contrast = None
    result = train_run(config, latest_sound_checkpoint(folder))
    losses = [value for _, value in read_curves(folder)['loss']]
    end = max(1, len(losses) // 10)
    found = dict(checkpoint=str(result.checkpoint), ap=100 * result.metrics['coco/segm_mAP'],
                 ap50=100 * result.metrics['coco/segm_mAP_50'], first_loss=statistics.mean(losses[:end]),
                 last_loss=statistics.mean(losses[-end:]))
    out.write_text(json.dumps(found))
    return found


if __name__ == '__main__':
    main()
