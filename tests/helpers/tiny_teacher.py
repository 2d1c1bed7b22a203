"""What the tests of the foundation teacher share: the shipped config in miniature."""

from pathlib import Path

from mmengine.config import Config

from mmcast.testing.models import build_model
from mmcast.testing.teacher import shrink_teacher, write_tiny_bert

CONFIG = Path(__file__).parents[2] / 'configs/_base_/models/grounded_sam.py'
CLASSES = ('person', 'rider', 'traffic light')


def teacher_config(folder, classes=CLASSES, score_thr=0.0, **options):
    """A tiny ``GroundedSAM``; its language model's files go to ``folder``."""
    config = shrink_teacher(
        Config.fromfile(CONFIG).model.detector, write_tiny_bert(folder / 'bert')
    )
    config.grounding_dino.test_cfg.update(
        score_thr=score_thr, max_per_img=12, **options.pop('box_test_cfg', {})
    )
    config.grounding_dino.update(options.pop('grounding_dino', {}))
    for name, value in dict(
        dict(classes=list(classes), activation_checkpointing=False), **options
    ).items():
        config[name] = value
    return config


def teacher(folder, **options):
    """Built with random weights that scatter its boxes and give masks of both values."""
    model = build_model(teacher_config(folder, **options))
    for branch in model.grounding_dino.bbox_head.reg_branches:
        branch[-1].weight.data.mul_(5)
    return model
