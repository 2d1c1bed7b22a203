"""What adaptation does to the foundation teacher, in miniature on Toy Cityscapes, on a CPU.

    python benchmarks/tiny_teacher.py --work-dir work_dirs/tiny_teacher

A teacher of 5 M parameters learns on scenes of a clear day, which makes it the "foundation" model. Then it is
tested on the target domain as it is, after step 1a (10 % of the labels) and after step 1b (with its own
pseudo-labels), through the shipped configs with sizes, iterations and learning rates changed. Printed are the loss at
the beginning and at the end of each step and mask AP. Finished steps are kept.
"""
import argparse
import json
import statistics
from pathlib import Path

import mmcast  # noqa: F401  before anything imports mmdet
from mmcast.command_line import report_errors

ADAPT = 'configs/cityscapes/cityscapes_teacher_adapt_{}.py'
#: Of the tests' tiny teacher: encoders that can learn something, and no map at stride 4, where most of the time would go.
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


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/tiny_teacher'))
    parser.add_argument('--pretrain', type=int, default=4000, help='iterations on the source domain (4000)')
    parser.add_argument('--adapt', type=int, default=600, help='iterations of 1a and of 1b (600)')
    parser.add_argument('--images', type=int, nargs=2, default=[1000, 100], metavar=('SOURCE', 'TARGET'))
    args = parser.parse_args()

    from mmcast.datasets.toy_cityscapes import prepare
    from mmcast.pseudo_labels import generate_pseudo_labels
    folder = args.work_dir
    source = prepare(folder / 'source', percent=50, domain='source', num_train=args.images[0], num_val=10)
    target = prepare(folder / 'target', percent=10, num_train=args.images[1], num_val=60)

    start = train(folder, 'pretrained', 'labeled', args.pretrain, [source['train']], source, target)
    report('zero-shot', start)
    adapted = train(folder, 'adapted', 'labeled', args.adapt, [target['labeled']], target, target, start)
    report('1a', adapted)
    pseudo = folder / 'pseudo_labels.json'
    config = small_config(folder, 'labeled', args.adapt, [target['labeled']], target, target)
    generate_pseudo_labels(config, adapted['checkpoint'], pseudo, ann_file=target['unlabeled'],
                           img_dir=target['train_images'])
    report('1b', train(folder, 'self_trained', 'self_training', args.adapt, [target['labeled'], str(pseudo)],
                       target, target, start))


def small_config(folder: Path, kind: str, iterations: int, ann_files: list[str], data: dict, val: dict):
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
    return config


def train(folder: Path, name: str, kind: str, iterations: int, ann_files: list[str], data: dict, val: dict,
          start: dict | None = None) -> dict:
    """Checkpoint, AP and losses of one run; what an earlier call finished is read."""
    from mmcast.engine.curves import read_curves
    from mmcast.engine.runs import latest_sound_checkpoint, train_run
    out = folder / f'{name}.json'
    if out.exists():
        return json.loads(out.read_text())
    config = small_config(folder, kind, iterations, ann_files, data, val)
    config.work_dir = str(folder / name)
    if start:
        config.load_from = start['checkpoint']
    else:
        config.model.pixel_contrast = None
    result = train_run(config, latest_sound_checkpoint(Path(config.work_dir)))
    losses = [value for _, value in read_curves(Path(config.work_dir))['loss']]
    end = max(1, len(losses) // 10)
    found = dict(checkpoint=str(result.checkpoint), ap=result.metrics['coco/segm_mAP'],
                 ap50=result.metrics['coco/segm_mAP_50'], first_loss=statistics.mean(losses[:end]),
                 last_loss=statistics.mean(losses[-end:]))
    out.write_text(json.dumps(found))
    return found


def report(row: str, found: dict) -> None:
    print(f'{row:10s} {100 * found["ap"]:5.1f} mask AP {100 * found["ap50"]:5.1f} AP50   training loss '
          f'{found["first_loss"]:.2f} to {found["last_loss"]:.2f}', flush=True)


if __name__ == '__main__':
    main()
