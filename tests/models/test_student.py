"""The compact student: its size, its predictions in the original image, its gradients."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmcast.deploy.flops import count_flops
from mmcast.errors import CASTError
from mmcast.models.student.lazy_masks import LazyMasks
from mmcast.registry import MODELS
from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model, tiny_student_config

CONFIG = Path(__file__).parents[2] / 'configs' / '_base_' / 'models' / 'cast_student.py'


def count(module):
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_shipped_student_has_52_million_parameters():
    init_default_scope('mmcast')
    with torch.device('meta'):
        student = MODELS.build(Config.fromfile(CONFIG).model.detector)
    assert count(student) == pytest.approx(52.0, abs=1.0)
    assert count(student.backbone) == pytest.approx(22.0, abs=0.5)
    assert count(student.panoptic_head.pixel_decoder) == pytest.approx(22.0, abs=8.0)


MODEL_FILES = dict(cast_lite=4.05, lite_teacher=5.45, cast_student_dinov3=51.49)


@pytest.mark.parametrize('name', MODEL_FILES)
def test_shipped_networks_on_timms_encoders_have_their_size(name):
    """The decoder fits the encoder's maps without channels or strides in the config."""
    init_default_scope('mmcast')
    with torch.device('meta'):
        network = MODELS.build(Config.fromfile(CONFIG.with_stem(name)).model.detector)
    assert count(network) == pytest.approx(MODEL_FILES[name], abs=0.01)
    head, encoder = network.panoptic_head, network.backbone
    assert [level[0].in_channels for level in head.pixel_decoder.reassemble] == encoder.channels
    plain = name == 'cast_student_dinov3'
    kinds = [type(level[1]).__name__ for level in head.pixel_decoder.reassemble]
    pyramid = ['ConvTranspose2d', 'ConvTranspose2d', 'Identity', 'Conv2d']
    assert kinds == (pyramid if plain else ['Identity'] * 4)


def test_cast_lite_has_an_eighth_of_the_students_operations():
    """At 512x1024 (divided by 14 for the student), as ``mmcast benchmark`` counts, without the
    resizing of masks, which both have.
    """
    counts = []
    for name, size in (('cast_lite', (512, 1024)), ('cast_student', (518, 1036))):
        init_default_scope('mmcast')
        with torch.device('meta'):
            network = MODELS.build(Config.fromfile(CONFIG.with_stem(name)).model.detector)
            inputs = torch.empty(1, 3, *size)

        def run(network=network, inputs=inputs):
            pixels = network.panoptic_head.pixel_decoder(network.extract_feat(inputs))
            network.panoptic_head.decode(*pixels, every_layer=False)

        counts.append(count_flops(network.eval(), run)['total'])
    assert counts[0] < counts[1] / 8


def test_an_encoder_that_does_not_know_its_maps_asks_for_them():
    config = tiny_student_config()
    config.backbone = dict(type='mmdet.ResNet', depth=18)
    config.panoptic_head.in_channels = None
    with pytest.raises(CASTError, match='panoptic_head.in_channels: ResNet does not say what'):
        build_model(config)


def test_every_parameter_gets_a_gradient():
    student = build_model(tiny_student_config())
    sum(student.loss(*make_samples([2, 1])).values()).backward()
    assert [
        name for name, p in student.named_parameters() if p.grad is None or not p.grad.any()
    ] == []


def test_an_image_without_objects_still_reaches_every_parameter_of_the_graph():
    """DDP waits for a gradient of each parameter, be it zero."""
    student = build_model(tiny_student_config())
    sum(student.loss(*make_samples([0, 0])).values()).backward()
    assert [name for name, p in student.named_parameters() if p.grad is None] == []


def predict(student, images):
    """From raw images (3, H, W) of any size, as in a test loop."""
    samples = [make_samples([0], size=tuple(image.shape[-2:]))[1][0] for image in images]
    for sample, image in zip(samples, images):
        sample.set_metainfo(dict(ori_shape=(2 * image.shape[-2] + 1, 2 * image.shape[-1] - 1)))
    with torch.no_grad():
        return student.eval().test_step(dict(inputs=images, data_samples=samples))


def test_predictions_have_the_original_size_and_the_usual_fields():
    student = build_model(tiny_student_config(num_classes=3, num_queries=6))
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in [(37, 53), (50, 41)]]
    for sample, size in zip(predict(student, images), [(75, 105), (101, 81)]):
        pred = sample.pred_instances
        assert pred.masks.shape == (6, *size) and pred.masks.dtype == torch.bool
        assert pred.scores.shape == pred.labels.shape == (6,) and pred.bboxes.shape == (6, 4)
        assert ((pred.scores >= 0) & (pred.scores <= 1)).all() and set(pred.labels.tolist()) <= {
            0,
            1,
            2,
        }
        for mask, box in zip(pred.masks, pred.bboxes):
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            if len(rows):
                assert box.tolist() == [
                    columns.min(),
                    rows.min(),
                    columns.max() + 1,
                    rows.max() + 1,
                ]


def test_padding_of_the_batch_does_not_shift_the_masks():
    """With the image's own brightness as mask logits, the bright rectangle is found where it is."""
    student = build_model(tiny_student_config(num_queries=1))
    image = torch.zeros(3, 36, 44, dtype=torch.uint8)
    image[:, 8:24, 16:32] = 255

    student.backbone.forward = lambda inputs: inputs
    student.panoptic_head.pixel_decoder.forward = lambda inputs: (inputs.mean(1, keepdim=True), [])
    student.panoptic_head.decode = lambda features, *_, **__: (
        [torch.tensor([[[5.0, 0.0, 0.0, 0.0]]])],
        LazyMasks(torch.ones(1, 1, 1, 1), features),
    )
    mask = predict(student, [image])[0].pred_instances.masks[0]  # 73 x 87 pixels
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    assert [int(rows[0]), int(rows[-1]) + 1] == pytest.approx([8 * 73 / 36, 24 * 73 / 36], abs=1)
    assert [int(columns[0]), int(columns[-1]) + 1] == pytest.approx(
        [16 * 87 / 44, 32 * 87 / 44], abs=1
    )


@pytest.mark.parametrize('size', [(64, 60), (60, 64)])
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(size):
    student = build_model(tiny_student_config())
    message = f'inputs of {size} pixels do not divide into patches of 8: set pad_size_divisor=8'
    with pytest.raises(CASTError, match=re.escape(message)):
        student.loss(*make_samples([1], size=size))
