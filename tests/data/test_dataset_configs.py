"""The data configs of Cityscapes and ADE20K on tiny data in the real folder layout, through the
pipelines.
"""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.datasets import ADE20KInstanceDataset, CityscapesDataset
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import MODELS
from mmengine.runner import Runner, set_random_seed
from PIL import Image

from mmcast.coco.converters.ade20k import convert_ade20k
from mmcast.coco.converters.cityscapes import convert_cityscapes
from mmcast.coco.splits import make_split
from mmcast.data.compressed_masks import CompressedMasks
from mmcast.pseudo_labels.store import make_info
from mmcast.toy.cityscapes import generate_toy_cityscapes

CONFIGS = Path(__file__).parents[2] / 'configs/_base_'
IMAGES = dict(cityscapes='leftImg8bit/train', ade20k='images/training')
CROPS = dict(cityscapes=(512, 1024), ade20k=(630, 630))  # height and width of the recipe


def draw_ade20k(root):
    """Landscape and portrait images, each with two beds, a flag and a person; JPEG and RGB PNG."""
    rng = np.random.default_rng(0)
    for folder, prefix, number in (('training', 'train', 8), ('validation', 'val', 1)):
        for index in range(number):
            height, width = (60, 80) if index % 2 else (80, 60)
            classes, ids = np.zeros((2, height, width), np.uint8)
            for instance, label in enumerate((1, 1, 100, 4), start=1):
                box = slice(15 * instance - 10, 15 * instance), slice(5, 50)
                classes[box], ids[box] = label, instance
            for kind, ending, pixels in (
                ('images', 'jpg', rng.integers(0, 256, (height, width, 3), np.uint8)),
                ('annotations_instance', 'png', np.stack([classes, ids, ids * 0], axis=-1)),
            ):
                path = root / kind / folder / f'ADE_{prefix}_{index:08d}.{ending}'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)


@pytest.fixture(scope='module', params=['cityscapes', 'ade20k'])
def data(request, tmp_path_factory):
    """Name and folder of a data set: converted, half of it labeled, the other half with
    pseudo-labels.
    """
    root = tmp_path_factory.mktemp(request.param)
    if request.param == 'cityscapes':
        generate_toy_cityscapes(root, num_train=8, num_val=1, size=(64, 128), progress=False)
        convert = convert_cityscapes
    else:
        draw_ade20k(root)
        convert = convert_ade20k
    for split in ('train', 'val'):
        convert(root, split, root / f'annotations/instances_{split}.json', progress=False)
    coco = json.loads((root / 'annotations/instances_train.json').read_text())
    make_split(
        root / 'annotations/instances_train.json',
        root / 'labeled.json',
        root / 'unlabeled.json',
        percent=50,
    )
    unlabeled = json.loads((root / 'unlabeled.json').read_text())
    chosen = {image['id'] for image in unlabeled['images']}
    annotations = [dict(ann, score=0.9) for ann in coco['annotations'] if ann['image_id'] in chosen]
    (root / 'pseudo.json').write_text(
        json.dumps(dict(unlabeled, info=make_info(score_floor=0.05), annotations=annotations))
    )
    return request.param, root


def load_config(data, semi=False):
    """A data config whose paths are those of the tiny data, without worker processes."""
    dataset, root = data
    config = Config.fromfile(CONFIGS / f'datasets/{dataset}.py')
    if semi:
        config.train_dataloader = config.semi_dataloader
    train = config.train_dataloader.dataset
    parts = train.get('datasets', [train])
    for part, ann_file in zip(parts, ('labeled.json', 'pseudo.json')):
        part.update(
            ann_file=str(root / ann_file), data_prefix=dict(img=str(root / IMAGES[dataset]))
        )
    config.val_dataloader.dataset.data_root = str(root)
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    return config


def preprocess(batch, training):
    student = Config.fromfile(CONFIGS / 'models/cast_student.py').model.detector
    return MODELS.build(student.data_preprocessor)(batch, training)


@pytest.mark.parametrize('semi', [False, True], ids=['labeled', 'semi'])
def test_training_batches(data, semi):
    name, root = data
    config = load_config(data, semi)
    set_random_seed(
        0
    )  # flips and scales of eight images are to differ, which chance alone does not promise
    batch = next(iter(Runner.build_dataloader(config.train_dataloader, seed=0)))
    samples = batch['data_samples']
    sources = [sample.metainfo.get('source', 'labeled') for sample in samples]
    assert sources == (['labeled'] * 4 + ['pseudo'] * 4 if semi else ['labeled'] * 8)
    labeled = {
        image['file_name'] for image in json.loads((root / 'labeled.json').read_text())['images']
    }
    for source, sample in zip(sources, samples):
        file_name = Path(sample.img_path).relative_to(root / IMAGES[name]).as_posix()
        assert (file_name in labeled) == (source == 'labeled')

    height, width = CROPS[name]
    assert max(image.shape[1] for image in batch['inputs']) <= height
    assert max(image.shape[2] for image in batch['inputs']) <= width
    assert any(tuple(image.shape[1:]) == CROPS[name] for image in batch['inputs'])
    assert len({sample.scale_factor for sample in samples}) > 4
    assert {sample.flip for sample in samples} == {True, False}

    processed = preprocess(batch, training=True)
    size = tuple(processed['inputs'].shape[2:])
    assert all(side % 14 == 0 for side in size)
    assert sum(len(sample.gt_instances) for sample in samples) > 8
    for sample in processed['data_samples']:
        masks = sample.gt_instances.masks.to_tensor(torch.bool, 'cpu')
        assert masks.shape == (len(sample.gt_instances), *size)
        assert masks.flatten(1).any(1).all() and not masks[:, sample.img_shape[0] :].any()
        for mask, box in zip(masks, sample.gt_instances.bboxes):
            y, x = mask.nonzero(as_tuple=True)
            inside = torch.stack(
                [x.min() - box[0], y.min() - box[1], box[2] - x.max(), box[3] - y.max()]
            )
            assert inside.min() > -2  # nearest-neighbour masks move by up to a pixel of the source


def test_a_labeled_and_a_pseudo_labeled_image_come_out_alike(data):
    """One image through both data sets, same random numbers: only the source may differ."""
    _, root = data
    config = load_config(data, semi=True)
    pseudo = json.loads((root / 'pseudo.json').read_text())
    config.train_dataloader.dataset.datasets[0].ann_file = str(root / 'pseudo.json')
    loader = Runner.build_dataloader(config.train_dataloader, seed=0)
    as_labeled, as_pseudo = loader.dataset.datasets
    for index in range(len(pseudo['images'])):
        samples = []
        for dataset in (as_labeled, as_pseudo):
            np.random.seed(index)
            samples.append(dataset[index])
        one, other = (sample['data_samples'].gt_instances for sample in samples)
        assert torch.equal(samples[0]['inputs'], samples[1]['inputs'])
        assert torch.equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.masks.to_ndarray(), other.masks.to_ndarray())


def evaluators_of(name, root):
    config = Config.fromfile(CONFIGS / f'datasets/{name}.py')
    evaluators = [config.val_evaluator, *([config.official_metric] if name == 'cityscapes' else [])]
    evaluators[0].ann_file = str(root / 'annotations/instances_val.json')
    if len(evaluators) > 1:
        evaluators[1].seg_prefix = str(root / 'gtFine/val')
    return evaluators


def test_validation_gives_the_ground_truth_full_marks(data):
    """By COCO's metric and, for Cityscapes, by the official scripts; masks keep their size."""
    name, root = data
    config = load_config(data)
    loader = Runner.build_dataloader(config.val_dataloader)
    expected = dict(cityscapes=(1024, 2048), ade20k=(840, 630))[name]
    evaluator = Evaluator(evaluators_of(name, root))
    evaluator.dataset_meta = loader.dataset.metainfo
    for batch in loader:
        (sample,), (image,) = batch['data_samples'], batch['inputs']
        assert tuple(image.shape[1:]) == expected
        masks = sample.gt_instances.masks
        assert isinstance(masks, CompressedMasks) and len(masks) > 0
        sample.pred_instances = sample.gt_instances.new(
            masks=masks.to_tensor(torch.bool, 'cpu'),
            bboxes=sample.gt_instances.bboxes.tensor,
            labels=sample.gt_instances.labels,
            scores=torch.ones(len(masks)),
        )
        evaluator.process(data_samples=[sample], data_batch=batch)
    metrics = evaluator.evaluate(len(loader.dataset))
    assert metrics['coco/segm_mAP'] == 1.0
    assert name != 'cityscapes' or metrics['cityscapes/mAP'] == pytest.approx(1.0)


def test_class_names_are_mmdets():
    for name, dataset in (('cityscapes', CityscapesDataset), ('ade20k', ADE20KInstanceDataset)):
        config = Config.fromfile(CONFIGS / f'datasets/{name}.py')
        assert tuple(config.metainfo.classes) == dataset.METAINFO['classes']


def test_labeled_landscape_goes_with_unlabeled_portrait_images(tmp_path_factory):
    """A sampler that groups by orientation would wait here for ever."""
    root = tmp_path_factory.mktemp('ade20k')
    draw_ade20k(root)
    convert_ade20k(root, 'train', root / 'all.json', progress=False)
    content = json.loads((root / 'all.json').read_text())
    for name, portrait in dict(labeled=False, pseudo=True).items():
        images = [
            image for image in content['images'] if (image['width'] < image['height']) == portrait
        ]
        (root / f'{name}.json').write_text(
            json.dumps(dict(content, info=make_info(), images=images, annotations=[]))
        )
    loader = Runner.build_dataloader(
        load_config(('ade20k', root), semi=True).train_dataloader, seed=0
    )
    for indices in islice(loader.batch_sampler, 3):
        infos = [loader.dataset.get_data_info(index) for index in indices]
        assert [info['width'] < info['height'] for info in infos] == [False] * 4 + [True] * 4
