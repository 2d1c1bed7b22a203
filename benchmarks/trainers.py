"""Reads a folder of `mmcast export-labels` with each trainer's own data set class, and prints the
IoU of every object with what was exported.

    python benchmarks/trainers.py                  # packages in a temporary environment, 1 GB
    python benchmarks/trainers.py --env FOLDER     # keep the environment there

The packages are read for measuring; mmcast imports none of them. Ultralytics is AGPL-3.0.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

PACKAGES = (
    'rfdetr==1.11.2',
    'ultralytics==8.4.190',
    'lightly-train==0.18.0',
    'supervision==0.31.2',
)
CLASSES = ('cell', 'nucleus')
SIDE, LARGE = 128, (3024, 4032)
Found = dict[str, list[tuple[int, np.ndarray]]]  # class and mask of the objects, by image


def box(top: int, left: int, bottom: int, right: int, shape: tuple = (SIDE, SIDE)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def disc(row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def scene() -> dict[str, dict[str, tuple[str, int, np.ndarray]]]:
    """By image and kind of object: origin, class and mask."""
    ring = disc(30, 90, 20) & ~disc(30, 90, 9)
    noise = box(70, 70, 128, 120) & (np.random.default_rng(0).random((SIDE, SIDE)) < 0.9)
    noise &= cv2.connectedComponents(noise.astype(np.uint8), connectivity=8)[1] == 1
    two = disc(90, 25, 14) | disc(90, 55, 9)
    four = box(5, 5, 25, 25) | box(5, 40, 25, 60) | box(40, 5, 60, 25) | box(40, 40, 60, 60)
    island = disc(95, 90, 28) & ~disc(95, 90, 20) | disc(95, 90, 10)
    specks = disc(30, 30, 22)
    specks[56:70:6, 4:60:7] = True
    steps = box(80, 5, 100, 25) | box(100, 25, 120, 45)
    edge = box(3000, 4010, *LARGE, LARGE) & ~box(3010, 4020, 3012, 4025, LARGE)
    return {
        'a.png': {
            'whole': ('human', 0, disc(30, 25, 18)),
            'with a hole': ('human', 1, ring),
            'in two parts': ('human', 0, two),
            'at two borders': ('human', 1, box(110, 100, SIDE, SIDE)),
        },
        'b.png': {
            'in four parts': ('pseudo', 0, four),
            'a pixel': ('pseudo', 1, box(50, 70, 51, 71)),
            'touching at a corner': ('pseudo', 1, steps),
            'with 100 holes': ('pseudo', 0, noise),
        },
        'c.png': {
            'an island in a hole': ('human', 1, island),
            'with 24 specks': ('human', 0, specks),
        },
        'large.png': {'12 megapixels, with a hole': ('human', 0, edge)},
        'empty.png': {},
    }


def truth() -> dict[str, tuple[str, int, np.ndarray]]:
    """By kind of object: image, class and mask."""
    return {
        kind: (name, label, mask)
        for name, objects in scene().items()
        for kind, (_, label, mask) in objects.items()
    }


def export(folder: Path) -> Path:
    """The scene as human annotations and pseudo-labels, exported as a user would."""
    from pycocotools import mask as mask_api

    from mmcast.masks.rle import encode_mask
    from mmcast.pseudo_labels.store import make_info, write_store
    from mmcast.pseudo_labels.trainers import export_labels

    categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, start=1)]
    records: dict[str, list[dict]] = dict(human=[], pseudo=[])
    for number, (name, objects) in enumerate(scene().items(), start=1):
        shape = next((mask.shape for *_, mask in objects.values()), (SIDE, SIDE))
        pixels = np.full((*shape, 3), number, np.uint8)
        cv2.imwrite(str(folder / name), pixels)
        annotations = []
        for _, label, mask in objects.values():
            rle = encode_mask(mask)
            box_of = dict(area=int(mask.sum()), bbox=mask_api.toBbox(rle).tolist())
            fields = dict(category_id=label + 1, segmentation=rle, iscrowd=0)
            annotations.append(dict(fields, **box_of, score=0.9))
        image = dict(id=number, file_name=name, height=shape[0], width=shape[1])
        origin = next((origin for origin, *_ in objects.values()), 'human')
        records[origin].append(dict(image=image, annotations=annotations))
    held = folder / 'held.png'
    cv2.imwrite(str(held), np.zeros((SIDE, SIDE, 3), np.uint8))
    write_store(folder / 'pseudo.json', make_info(), categories, records['pseudo'])
    write_store(folder / 'labeled.json', {}, categories, records['human'])
    image = dict(id=1, file_name=held.name, height=SIDE, width=SIDE)
    write_store(folder / 'val.json', {}, categories, [dict(image=image)])
    written = export_labels(
        folder / 'labels',
        labeled=folder / 'labeled.json',
        pseudo_labels=folder / 'pseudo.json',
        val=folder / 'val.json',
        classes=CLASSES,
        progress=False,
    )
    return Path(written['folder'])


def read_rfdetr_coco(root: Path) -> Found:
    from rfdetr.datasets.coco import CocoDetection

    dataset = CocoDetection(
        root / 'train',
        root / 'train/_annotations.coco.json',
        transforms=None,
        include_masks=True,
        remap_category_ids=True,
    )
    names = [dataset.coco.imgs[number]['file_name'] for number in dataset.ids]
    return _of_targets(names, (dataset[number][1] for number in range(len(dataset))))


def read_rfdetr_yolo(root: Path) -> Found:
    from rfdetr.datasets.yolo import YoloDetection

    folders = (str(root / 'train' / name) for name in ('images', 'labels'))
    dataset = YoloDetection(*folders, str(root / 'data.yaml'), include_masks=True)
    names = sorted(os.listdir(root / 'train/images'))
    return _of_targets(names, (dataset[number][1] for number in range(len(dataset))))


def _of_targets(names: Iterable[str], targets: Iterable[dict]) -> Found:
    return {
        Path(name).name: [
            (int(label), np.asarray(mask, bool))
            for label, mask in zip(target['labels'], target['masks'], strict=True)
        ]
        for name, target in zip(names, targets, strict=True)
    }


def read_ultralytics(root: Path, times: int = 1) -> Found:
    """In images enlarged so many times; masks in their size, not in a quarter of it."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    found: Found = {}
    data = check_det_dataset(str(root / 'data.yaml'), autodownload=False)
    hyper = get_cfg(overrides=dict(mask_ratio=1, overlap_mask=False))
    for side in (SIDE * times, max(LARGE)):  # the large image stays as it is
        dataset = YOLODataset(
            img_path=str(root / 'train/images'),
            data=data,
            task='segment',
            augment=False,
            imgsz=side,
            hyp=hyper,
        )
        for number, file in enumerate(dataset.im_files):
            name = Path(file).name
            if (name == 'large.png') != (side == max(LARGE)):
                continue
            sample = dataset[number]
            masks = np.asarray(sample['masks'], bool)
            bar = (side - min(LARGE)) // 2 if side == max(LARGE) else 0  # above and below
            found[name] = [
                (int(label), mask[bar : side - bar])
                for label, mask in zip(sample['cls'].ravel(), masks)
            ]
    return found


def read_ultralytics_enlarged(root: Path) -> Found:
    return read_ultralytics(root, times=5)


def read_lightly_coco(root: Path) -> Found:
    from lightly_train._data.instance_segmentation_dataset import COCOInstanceSegmentationDataArgs

    parts = {
        split: dict(annotations=str(root / folder / '_annotations.coco.json'))
        for split, folder in (('train', 'train'), ('val', 'valid'))
    }
    return _of_lightly(COCOInstanceSegmentationDataArgs(**parts).get_train_args())


def read_lightly_yolo(root: Path) -> Found:
    from lightly_train._data.instance_segmentation_dataset import YOLOInstanceSegmentationDataArgs

    args = YOLOInstanceSegmentationDataArgs(
        path=str(root), train='train/images', val='valid/images', names=dict(enumerate(CLASSES))
    )
    return _of_lightly(args.get_train_args())


def _of_lightly(args) -> Found:
    import torch
    from lightly_train._data.file_helpers import ImageMode

    class Unchanged(args.get_dataset_cls()):
        """Its data set without augmentation."""

        @property
        def transform(self):
            return lambda found: {
                **found,
                'image': torch.from_numpy(found['image']),
                'binary_masks': torch.from_numpy(found['binary_masks']),
            }

    dataset = Unchanged(args, [*args.list_image_info()])
    dataset.image_mode = ImageMode.RGB
    found = {}
    for number in range(len(dataset)):
        sample = dataset[number]
        masks = sample['binary_masks']
        found[Path(sample['image_path']).name] = [
            (int(label), mask.numpy()) for label, mask in zip(masks['labels'], masks['masks'])
        ]
    return found


def read_mmdet(root: Path) -> Found:
    import_module('mmcast')  # first, as mmcv may lack its compiled operators
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules

    register_all_modules()
    loading = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='PackDetInputs'),
    ]
    dataset: CocoDataset = DATASETS.build(
        dict(
            type='CocoDataset',
            data_root=str(root),
            ann_file='train/_annotations.coco.json',
            data_prefix=dict(img='train/'),
            metainfo=dict(classes=CLASSES),
            pipeline=loading,
        )
    )
    found = {}
    for number in range(len(dataset)):
        sample = dataset[number]['data_samples']
        instances = sample.gt_instances
        found[Path(sample.img_path).name] = [
            (int(label), mask.astype(bool))
            for label, mask in zip(instances.labels, instances.masks.masks)
        ]
    return found


def read_supervision_coco(root: Path) -> Found:
    import supervision

    annotations = str(root / 'train/_annotations.coco.json')
    return _of_supervision(
        supervision.DetectionDataset.from_coco(str(root / 'train'), annotations, force_masks=True)
    )


def read_supervision_yolo(root: Path) -> Found:
    import supervision

    folders = (str(root / 'train' / name) for name in ('images', 'labels'))
    return _of_supervision(
        supervision.DetectionDataset.from_yolo(*folders, str(root / 'data.yaml'), force_masks=True)
    )


def _of_supervision(dataset) -> Found:
    found = {}
    for path, _, objects in dataset:
        masks = [] if objects.mask is None else objects.mask
        found[Path(path).name] = [
            (int(label), np.asarray(mask, bool)) for label, mask in zip(objects.class_id, masks)
        ]
    return found


READERS: dict[str, tuple[str, Callable[[Path], Found]]] = {
    'rfdetr, COCO': ('rfdetr', read_rfdetr_coco),
    'lightly-train, COCO': ('lightly-train', read_lightly_coco),
    'mmdet, COCO': ('', read_mmdet),
    'supervision, COCO': ('supervision', read_supervision_coco),
    'rfdetr, YOLO': ('rfdetr', read_rfdetr_yolo),
    'ultralytics': ('ultralytics', read_ultralytics),
    'ultralytics, 5x': ('ultralytics', read_ultralytics_enlarged),
    'lightly-train, YOLO': ('lightly-train', read_lightly_yolo),
    'supervision, YOLO': ('supervision', read_supervision_yolo),
}


def measure(reader: str, root: Path) -> dict:
    """IoU by kind of object, of the object of its class that fits best; numbers and version."""
    package, read = READERS[reader]
    found = read(root)
    ious = {}
    for kind, (name, label, mask) in truth().items():
        others = [other for own, other in found.get(name, []) if own == label]
        ious[kind] = max((_iou(mask, other) for other in others), default=0.0)
    if package:
        read_version = f'{package} {version(package)}'
    else:
        import mmdet

        read_version = f'mmdet {mmdet.__version__}'
    return dict(
        ious=ious,
        objects=sum(map(len, found.values())),
        images=len(found),
        version=read_version,
    )


def _iou(mask: np.ndarray, other: np.ndarray) -> float:
    times = len(other) // len(mask)
    mask = mask.repeat(times, axis=0).repeat(times, axis=1)
    return float((mask & other).sum() / (mask | other).sum())


def make_environment(folder: Path) -> Path:
    """A Python that has the packages, and everything else from this environment."""
    python = folder / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
    if not python.exists():
        venv.create(folder, with_pip=True)
        site = subprocess.check_output(
            [python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'], text=True
        ).strip()
        Path(site, 'this_environment.pth').write_text(sysconfig.get_path('purelib'))
        pip = [python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check']
        subprocess.run([*pip, *PACKAGES], check=True)
    return python


def run_reader(reader: str, root: Path, python: Path) -> dict:
    own = READERS[reader][0] == ''
    command = [sys.executable if own else python, __file__, '--reader', reader, '--root', root]
    settings = dict(
        os.environ, YOLO_CONFIG_DIR=str(root.parent), YOLO_OFFLINE='1', YOLO_AUTOINSTALL='0'
    )
    done = subprocess.run(command, capture_output=True, text=True, env=settings)
    if done.returncode:
        sys.exit(f'{reader} failed:\n{done.stderr}')
    return json.loads(done.stdout.splitlines()[-1])


def print_table(found: dict[str, dict]) -> None:
    print(', '.join(dict.fromkeys(each['version'] for each in found.values())), end='\n\n')
    print(f'| object | {" | ".join(found)} |')
    print(f'|---|{"---|" * len(found)}')
    for kind in truth():
        cells = (f'{each["ious"][kind]:.3f}' for each in found.values())
        print(f'| {kind} | {" | ".join(cells)} |')
    numbers = (f'{each["objects"]}, {each["images"]}' for each in found.values())
    print(f'| objects, images | {" | ".join(numbers)} |')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--env', type=Path, help='folder of the environment; default a temporary one'
    )
    parser.add_argument('--reader', choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument('--root', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reader:
        print('\n' + json.dumps(measure(args.reader, args.root)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        python = make_environment(args.env or Path(temporary, 'environment'))
        root = export(Path(temporary))
        print_table({reader: run_reader(reader, root, python) for reader in READERS})


if __name__ == '__main__':
    main()
