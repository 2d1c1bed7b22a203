"""What the tests of SAM3 share: the shipped config in miniature."""

from pathlib import Path

from mmengine.config import Config

from mmcast.testing.models import build_model
from mmcast.testing.teacher import shrink_sam3, write_tiny_clip

CONFIG = Path(__file__).parents[2] / 'configs/_base_/models/sam3.py'
CLASSES = ('person', 'rider', 'traffic light')


def sam3_config(folder, classes=CLASSES, words=CLASSES, **options):
    """A tiny ``SAM3`` whose queries all count; its tokenizer's files go to ``folder / 'clip'``."""
    words = [word for name in words for word in name.split()]
    tokenizer = write_tiny_clip(folder / 'clip', words)
    config = shrink_sam3(Config.fromfile(CONFIG).model.detector, tokenizer)
    options = dict(dict(classes=list(classes), activation_checkpointing=False), **options)
    config.test_cfg.update(dict(dict(score_thr=0.0, max_per_img=12), **options.pop('test_cfg', {})))
    for name, value in options.items():
        config[name] = value
    return config


def sam3(folder, **options):
    """Built with random weights that scatter its boxes and give masks of both values."""
    model = build_model(sam3_config(folder, **options))
    model.network.detr_decoder.box_head.layer3.weight.data.mul_(20)
    return model
