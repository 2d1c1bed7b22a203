"""What adaptation does to the foundation teacher, in miniature on Toy Cityscapes or DSB2018, on a
CPU.

    python benchmarks/tiny_teacher.py --work-dir work_dirs/tiny_teacher --seeds 0 1 2
    python benchmarks/tiny_teacher.py --data dsb2018 --pretrain 1500 --adapt 500 --images 150 20 \\
        --work-dir work_dirs/tiny_teacher_dsb2018

A teacher of 5 M parameters learns on synthetic images, which makes it the "foundation" model:
scenes of a clear day, or nuclei. Then it is tested on the target domain as it is, after step 1a
(10 % of the labels) and after step 1b (with its own pseudo-labels), through the shipped configs
with sizes, iterations and learning rates changed. A seed decides which images are labeled, and the
random numbers of 1a and 1b. Printed are mask AP, the loss at the beginning and at the end of each
step, and what the options that only a teacher of two components has change in the labels of both
generations: SAM2 prompted again with its own mask, and scores that are products with SAM2's
estimate of IoU and the components' agreement. Finished steps are kept.

Of DSB2018, and of synthetic nuclei, every image is cut into tiles of 80 pixels: half of the nuclei
are less than 13 pixels wide, and this teacher could not see them in whole images.
"""

import argparse
import copy
import json
import math
import statistics
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mmcast.cli.errors import report_errors

ADAPT = 'configs/cityscapes/cityscapes_teacher_adapt_{}.py'
#: Of the tests' tiny teacher: encoders that can learn something, and no map at stride 4, where most
#: time would go.
LEARNS_IN_AN_HOUR = {
    'activation_checkpointing': False,
    'grounding_dino.box_scale': (224, 112),
    'grounding_dino.train_box_scales': [(224, 112)],
    'grounding_dino.num_queries': 60,
    'grounding_dino.num_feature_levels': 4,
    'grounding_dino.backbone': dict(
        embed_dims=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], out_indices=(1, 2, 3)
    ),
    'grounding_dino.neck': dict(in_channels=[48, 96, 192], num_outs=4),
    'grounding_dino.encoder.layer_cfg.self_attn_cfg.num_levels': 4,
    'grounding_dino.decoder.layer_cfg.cross_attn_cfg.num_levels': 4,
    'sam2.image_size': 128,
    'sam2.boxes_per_chunk': 32,
    'sam2.encoder.hidden_size': 16,
}

#: The teacher predicts on a tile enlarged 1.6 times.
LOOKS_AT_TILES = {
    'grounding_dino.box_scale': (128, 128),
    'grounding_dino.train_box_scales': [(128, 128)],
}
TILE = 80  # pixels, height and width
VALIDATION = 24  # images of DSB2018
SMALLEST = 8  # pixels of a nucleus in a tile; what is less is background

#: Options of the detector for better labels (docs/pseudo_labels.md).
OPTIONS = {
    'plain': {},
    'prompted again': {'sam2.reprompts': 1},
    'score times mask quality': {'score_factors': ['mask_quality']},
    'score times agreement': {'score_factors': ['agreement']},
    'score times both': {'score_factors': ['mask_quality', 'agreement']},
}
STEPS = dict(ap='mask AP', ap50='AP50', first_loss='first loss', last_loss='last loss')
LABELS = dict(ap='mask AP', ap50='AP50', precision='precision', recall='recall')


@report_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', choices=DATA, default='toy_cityscapes')
    parser.add_argument('--data-root', type=Path, default=Path('data/dsb2018'), help='of DSB2018')
    parser.add_argument(
        '--work-dir', type=Path, help='one for each --data (work_dirs/tiny_teacher_DATA)'
    )
    parser.add_argument(
        '--pretrain', type=int, default=4000, help='iterations on the source domain (4000)'
    )
    parser.add_argument('--adapt', type=int, default=600, help='iterations of 1a and of 1b (600)')
    parser.add_argument(
        '--images',
        type=int,
        nargs=2,
        default=[1000, 100],
        metavar=('SOURCE', 'TARGET'),
        help='synthetic ones, those of the target domain: all of them, or of DSB2018 those that '
        'the teacher labels (1000 100)',
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    args = parser.parse_args()
    args.work_dir = args.work_dir or Path(f'work_dirs/tiny_teacher_{args.data}')

    data_of = DATA[args.data]['prepare']
    source, targets = (
        data_of(args, 'source'),
        {seed: data_of(args, 'target', seed) for seed in args.seeds},
    )
    steps, labels = {}, {}
    config = small_config(
        args, 'labeled', args.pretrain, [source['train']], source, targets[args.seeds[0]]
    )
    start = train(args.work_dir / 'pretrained', config)
    collect(steps, {'zero-shot': start})
    for seed, target in targets.items():
        found = adapt(args, target, start, seed)
        collect(steps, found[0])
        collect(labels, found[1])
    show('', steps, STEPS)
    show('pseudo-labels', labels, LABELS)


def collect(results: dict[str, list[dict]], found: dict[str, dict]) -> None:
    """Appends one seed's figures to those of the others."""
    for name, figures in found.items():
        results.setdefault(name, []).append(figures)


def show(title: str, results: dict[str, list[dict]], columns: dict[str, str]) -> None:
    """Prints mean, sample standard deviation and every seed's value."""
    table = Table(title, *columns.values())
    for name, seeds in results.items():
        table.add_row(name, *(spread([figures[key] for figures in seeds]) for key in columns))
    Console(width=160).print(table)


def spread(values: list[float]) -> str:
    every = ', '.join(f'{value:.1f}' for value in values)
    if len(values) == 1:
        return every
    return f'{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f} ({every})'


def scenes(args: argparse.Namespace, domain: str, seed: int = 0) -> dict[str, str]:
    """Paths as ``toy_cityscapes.prepare`` has them, of one domain."""
    options = dict(
        source=dict(percent=50, num_train=args.images[0], num_val=10),
        target=dict(percent=10, num_train=args.images[1], num_val=60),
    )
    from mmcast.toy.cityscapes import prepare_toy_cityscapes

    return prepare_toy_cityscapes(
        args.work_dir / domain, seed=seed, domain=domain, **options[domain]
    )


def nuclei(args: argparse.Namespace, domain: str, seed: int = 0) -> dict[str, str]:
    """The same of tiles, of synthetic images or of DSB2018, of which 10 % are labeled."""
    from mmcast.coco.folder import prepare_coco_folder
    from mmcast.coco.reading import read_image_list
    from mmcast.toy.nuclei import generate_toy_nuclei

    out = args.work_dir / domain
    if domain == 'source':
        generate_toy_nuclei(out, num_train=args.images[0], num_val=0)
        return dict(
            train=cut(out / 'annotations/instances_train.json', out / 'images', out / 'tiles'),
            train_images=str(out / 'tiles'),
        )
    data = prepare_coco_folder(args.data_root, out, seed=seed)

    def tiles(part: str, ann_file: str, number: int | None = None) -> str:
        names = [image['file_name'] for image in read_image_list(data[part])['images'][:number]]
        return cut(ann_file, data['train_images'], out / 'tiles', f'{part}_seed{seed}.json', names)

    # Held-out ground truth is in the file of the unlabeled tiles, of which labeling reads but the
    # names.
    unlabeled = tiles('unlabeled', data['train'], args.images[1])
    return dict(
        train=unlabeled,
        unlabeled=unlabeled,
        labeled=tiles('labeled', data['labeled']),
        val=tiles('val', data['val'], VALIDATION),
        train_images=str(out / 'tiles'),
        val_images=str(out / 'tiles'),
    )


def cut(
    ann_file: str | Path,
    img_dir: str | Path,
    out: Path,
    name: str = 'train.json',
    file_names: list[str] | None = None,
) -> str:
    """The COCO file ``name`` of tiles of the images, all or those named; what is left at the
    borders is not used.
    """
    from pycocotools.coco import COCO

    from mmcast.coco.converters.instance_maps import convert_maps

    coco = COCO(str(ann_file))
    stems = [
        f'{image["id"]}_{top}_{left}'
        for image in coco.dataset['images']
        if file_names is None or image['file_name'] in file_names
        for top in range(0, image['height'] - TILE + 1, TILE)
        for left in range(0, image['width'] - TILE + 1, TILE)
    ]
    convert_maps(
        partial(cut_one, coco, Path(img_dir), out),
        stems,
        coco.dataset['categories'],
        out / name,
        f'tiles of {Path(ann_file).name}',
        force=True,
    )
    return str(out / name)


def cut_one(coco, img_dir: Path, out: Path, stem: str) -> tuple[dict, list[dict]]:
    """Writes one tile, at ``image_top_left``; its COCO entries, without ids."""
    import cv2

    from mmcast.coco.converters.instance_maps import annotation
    from mmcast.files import write_atomically

    image_id, top, left = map(int, stem.split('_'))
    image = coco.imgs[image_id]
    path = out / f'{Path(image["file_name"]).stem}_{top}_{left}.png'
    place = np.s_[top : top + TILE, left : left + TILE]
    if not path.exists():
        write_atomically(
            path,
            cv2.imencode('.png', cv2.imread(str(img_dir / image['file_name']))[place])[1].tobytes(),
        )
    masks = [coco.annToMask(instance)[place] for instance in coco.imgToAnns[image_id]]
    return (
        dict(file_name=path.name, height=TILE, width=TILE),
        [
            annotation(mask > 0, 1, index)
            for index, mask in enumerate(masks, start=1)
            if mask.sum() >= SMALLEST
        ],
    )


#: Where the images come from, what is in them (None: the classes of Cityscapes), and the teacher's
#: sizes.
DATA = dict(
    toy_cityscapes=dict(prepare=scenes, classes=None, sizes={}),
    dsb2018=dict(prepare=nuclei, classes=('nucleus',), sizes=LOOKS_AT_TILES),
)


def adapt(
    args: argparse.Namespace, data: dict, start: dict, seed: int
) -> tuple[dict[str, dict], dict[str, dict]]:
    """Results of steps 1a and 1b of one seed, and the quality of both teachers' labels with each
    option.
    """
    steps, labels, out = {}, {}, args.work_dir / f'seed{seed}'
    ann_files = [data['labeled']]
    for step, kind in {'1a': 'labeled', '1b': 'self_training'}.items():
        config = small_config(args, kind, args.adapt, ann_files, data, data, seed)
        steps[step] = train(out / kind, config, start)
        labels |= label_with_options(step, config, steps[step], out, data)
        ann_files = [data['labeled'], str(out / '1a_plain.json')]
    return steps, labels


def label_with_options(
    generation: str, config, teacher: dict, out: Path, data: dict
) -> dict[str, dict]:
    """Quality in percent of a teacher's labels with each option, against held-out ground truth."""
    from mmcast.pseudo_labels.generate import generate_pseudo_labels
    from mmcast.reports.pseudo_labels import inspect_pseudo_labels

    stores = {}
    for name, options in OPTIONS.items():
        title = f'{generation}, {name}'
        stores[title] = out / f'{generation}_{name.replace(" ", "_")}.json'
        changed = copy.deepcopy(config)
        changed.merge_from_dict({f'model.detector.{key}': value for key, value in options.items()})
        generate_pseudo_labels(
            changed,
            teacher['checkpoint'],
            stores[title],
            ann_file=data['unlabeled'],
            img_dir=data['train_images'],
        )
    report = inspect_pseudo_labels(
        stores, out / f'{generation}.html', hidden=data['train'], img_dir=data['train_images']
    )
    # Not a number where no label could be right.
    return {
        title: {
            key: 100 * (math.nan if store['quality'][key] is None else store['quality'][key])
            for key in LABELS
        }
        for title, store in report['stores'].items()
    }


def small_config(
    args: argparse.Namespace,
    kind: str,
    iterations: int,
    ann_files: list[str],
    data: dict,
    val: dict,
    seed: int = 0,
):
    """The shipped config of 1a or 1b for a tiny teacher and the data in use."""
    from mmengine.config import Config

    from mmcast.testing.teacher import shrink_teacher, write_tiny_bert

    config = Config.fromfile(ADAPT.format(kind))
    classes = DATA[args.data]['classes'] or config.metainfo.classes
    words = sorted({word for name in classes for word in name.split()})
    detector = shrink_teacher(config.model.detector, write_tiny_bert(args.work_dir / 'bert', words))
    config.model.detector = detector
    sizes = LEARNS_IN_AN_HOUR | DATA[args.data]['sizes'] | dict(classes=classes)
    config.merge_from_dict({f'model.detector.{name}': value for name, value in sizes.items()})
    loaders = config.train_dataloader, config.val_dataloader, config.test_dataloader
    for loader in loaders:
        loader.update(num_workers=0, persistent_workers=False)
    config.train_dataloader.batch_size = 4
    train = config.train_dataloader.dataset
    for part, ann_file in zip(train.get('datasets', [train]), ann_files, strict=True):
        part.update(
            data_root='',
            ann_file=ann_file,
            data_prefix=dict(img=data['train_images']),
            metainfo=dict(classes=classes),
        )
    if 'datasets' in train:
        config.train_dataloader.sampler.batch_size = 4
    for loader, evaluator in zip(loaders[1:], (config.val_evaluator, config.test_evaluator)):
        loader.dataset.update(
            data_root='',
            ann_file=val['val'],
            data_prefix=dict(img=val['val_images']),
            metainfo=dict(classes=classes),
        )
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
    from mmcast.training.checkpoints import latest_intact_checkpoint
    from mmcast.training.curves import read_curves
    from mmcast.training.runner import train_run

    out = folder / 'result.json'
    if out.exists():
        return json.loads(out.read_text())
    config.work_dir = str(folder)
    if start:
        config.load_from = start['checkpoint']
    else:
        config.model.pixel_contrast = None
    result = train_run(config, latest_intact_checkpoint(folder))
    losses = [value for _, value in read_curves(folder)['loss']]
    end = max(1, len(losses) // 10)
    found = dict(
        checkpoint=str(result.checkpoint),
        ap=100 * result.metrics['coco/segm_mAP'],
        ap50=100 * result.metrics['coco/segm_mAP_50'],
        first_loss=statistics.mean(losses[:end]),
        last_loss=statistics.mean(losses[-end:]),
    )
    out.write_text(json.dumps(found))
    return found


if __name__ == '__main__':
    main()
