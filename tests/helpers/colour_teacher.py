"""A teacher that sees rectangles by colour, images for it, and a call that labels them."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

from mmcast.pseudo_labels.generate import generate_pseudo_labels
from mmcast.registry import MODELS

HEIGHT, WIDTH = 12, 20
CLASSES = ('person', 'car')


@MODELS.register_module(force=True)
class ColourTeacher(BaseModel):
    """Blue is a person with score `confidence`, green a car with 0.5; then an empty mask and a weak
    one.

    All of them `copies` times. In training `confidence` learns to be 1.
    """

    def __init__(
        self, with_masks=True, with_factors=False, with_probabilities=False, seconds=0.0, copies=1
    ):
        super().__init__(data_preprocessor=dict(type='mmdet.DetDataPreprocessor'))
        self.confidence = torch.nn.Parameter(torch.tensor(0.0))
        if with_probabilities:  # it can, where it is asked to
            self.mask_probabilities = False
        self.with_masks, self.with_factors, self.seconds = with_masks, with_factors, seconds
        self.copies = copies

    def forward(self, inputs, data_samples, mode='predict'):
        time.sleep(self.seconds)
        if mode == 'loss':
            return dict(loss=(self.confidence - 1).square())
        for image, sample in zip(inputs, data_samples):
            sample.pred_instances = self.find(image)
        return data_samples

    def find(self, image):
        blue, green = image[0] > 128, image[1] > 128
        masks = [blue, green, torch.zeros_like(blue), torch.ones_like(blue)]
        scores = torch.cat([self.confidence[None], image.new_tensor([0.5, 0.9, 0.05])])
        labels = torch.tensor([0, 1, 1, 0], device=image.device)
        prediction = InstanceData(scores=scores, labels=labels)
        if self.with_masks:
            prediction.masks = torch.stack(masks)
        if self.with_factors:
            prediction.class_scores, prediction.mask_quality = scores.sqrt(), scores.sqrt()
            prediction.agreement = 1 - scores
        if getattr(self, 'mask_probabilities', False):
            # Unsure of the first two rows, but not that nothing is nothing.
            prediction.probabilities = torch.stack(masks).byte() * 255
            prediction.probabilities[prediction.probabilities.flatten(1).bool().any(1), :2] = 128
        return InstanceData.cat([prediction] * self.copies)


def make_data(folder: Path, count: int = 5) -> Path:
    """Images, the third black, and a teacher; category ids are not labels, and car comes first."""
    images = []
    for number in range(count):
        image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        if number != 2:
            left = number % 10
            image[2:6, left : left + 7, 0] = 255
            image[4:10, 10:14, 1] = 255
        (folder / 'images' / 'sub').mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f'images/sub/{number:03d}.png'), image)
        images.append(
            dict(id=10 + number, file_name=f'sub/{number:03d}.png', height=HEIGHT, width=WIDTH)
        )
    secret = dict(
        id=1, image_id=10, category_id=7, bbox=[0, 0, 5, 5], area=25, iscrowd=0, segmentation=[]
    )
    content = dict(
        images=images,
        annotations=[secret],
        categories=[dict(id=7, name='car'), dict(id=3, name='person')],
    )
    (folder / 'images.json').write_text(json.dumps(content))
    torch.save(
        dict(state_dict=dict(confidence=torch.tensor(0.87654321)), meta={}), folder / 'teacher.pth'
    )
    return folder


def make_config(**model):
    pipeline = [
        dict(type='LoadImage'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
    ]
    dataset = dict(type='CocoDataset', metainfo=dict(classes=CLASSES), pipeline=pipeline)
    return Config(
        dict(
            default_scope='mmcast',
            model=dict(type='ColourTeacher', **model),
            test_dataloader=dict(num_workers=0, dataset=dataset),
        )
    )


def generate(data, out='labels.json', config=None, **kwargs):
    options = dict(ann_file=data / 'images.json', img_dir=data / 'images', device='cpu') | kwargs
    return generate_pseudo_labels(
        config or make_config(), data / 'teacher.pth', data / out, progress=False, **options
    )
