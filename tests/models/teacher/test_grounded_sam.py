"""The teacher's predictions: those of mmdet's Grounding-DINO and of transformers' SAM2, put
together.
"""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import FixScaleResize
from mmdet.structures import DetDataSample
from mmengine.config import Config
from tiny_teacher import CLASSES, CONFIG, teacher, teacher_config
from transformers import BertModel, Sam2ImageProcessorFast, Sam2Model, Sam2Processor

from mmcast.errors import CASTError
from mmcast.registry import MODELS
from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model, build_without_memory

SIZES = [(48, 96), (90, 60), (64, 64)]  # height and width: wide, tall, square


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return teacher(tmp_path_factory.mktemp('teacher')).eval()


def image_of(size, seed=0):
    """A smooth BGR image (H, W, 3) of uint8, as it is loaded."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((16, 16, 1), np.uint8))[: size[0], : size[1]]


def predict(model, *images):
    samples = [
        DetDataSample(metainfo=dict(img_shape=image.shape[:2], ori_shape=image.shape[:2]))
        for image in images
    ]
    inputs = [torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) for image in images]
    with torch.no_grad():
        return [
            sample.pred_instances
            for sample in model.test_step(dict(inputs=inputs, data_samples=samples))
        ]


# Equality with the two networks alone


@pytest.fixture(scope='module')
def mmdets(model, tmp_path_factory):
    """mmdet's own Grounding-DINO, with mmdet's own language model, and our weights."""
    folder = tmp_path_factory.mktemp('mmdet')
    config = teacher_config(folder).grounding_dino
    for name in ('box_scale', 'train_box_scales'):
        config.pop(name)
    bert = folder / 'bert'
    BertModel(
        model.grounding_dino.language_model.language_backbone.body.model.config
    ).save_pretrained(bert)
    config.language_model = dict(
        type='BertModel',
        name=str(bert),
        max_tokens=48,
        pad_to_max=False,
        use_sub_sentence_represent=True,
        special_tokens_list=['[CLS]', '[SEP]', '.', '?'],
        add_pooling_layer=False,
    )
    config.update(type='mmdet.GroundingDINO', test_cfg=dict(max_per_img=12))
    network = MODELS.build(config).eval()
    network.load_state_dict(model.grounding_dino.state_dict())  # strict: the names are mmdet's
    return network


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_boxes_are_those_of_mmdets_grounding_dino(model, mmdets, size):
    image = image_of(size)
    ours = predict(model, image)[0]
    rgb = torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))
    inputs = model.grounding_dino.preprocess(rgb, model.grounding_dino.box_scale)
    shape = tuple(inputs.shape[1:])
    sample = DetDataSample(
        metainfo=dict(
            img_shape=shape,
            ori_shape=size,
            batch_input_shape=shape,
            text=CLASSES,
            custom_entities=True,
            scale_factor=(shape[1] / size[1], shape[0] / size[0]),
        )
    )
    with torch.no_grad():
        theirs = mmdets.predict(inputs[None], [sample], rescale=True)[0].pred_instances
    sides = theirs.bboxes[:, 2:] - theirs.bboxes[:, :2]
    theirs = theirs[(sides > 0).all(1)]
    assert len(ours) == len(theirs) >= 8
    torch.testing.assert_close(ours.class_scores, theirs.scores)
    torch.testing.assert_close(ours.bboxes, theirs.bboxes, atol=1e-3, rtol=1e-5)
    assert ours.labels.tolist() == theirs.labels.tolist()


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_grounding_dinos_input_is_mmdets_test_pipelines(model, size):
    """Sides as mmdet's; pixels as pillow's, up to the rounding of one level."""
    image = image_of(size)[..., ::-1].copy()
    theirs = FixScaleResize(scale=(64, 128), keep_ratio=True, backend='pillow')(dict(img=image))[
        'img'
    ]
    network = model.grounding_dino
    ours = network.preprocess(torch.from_numpy(image.transpose(2, 0, 1)), network.box_scale)
    pixels = ours * network.data_preprocessor.std + network.data_preprocessor.mean
    assert pixels.shape[1:] == theirs.shape[:2]
    assert np.abs(pixels.numpy().transpose(1, 2, 0) - theirs).max() < 1.01


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_masks_are_those_of_transformers_processor_and_model(model, size):
    image = image_of(size)
    ours = predict(model, image)[0]
    processor = Sam2Processor(
        Sam2ImageProcessorFast(size=dict(height=64, width=64)), target_size=64
    )
    network = Sam2Model(model.sam2.model.config).eval()
    network.load_state_dict(model.sam2.model.state_dict())
    inputs = processor(
        images=image[..., ::-1].copy(), input_boxes=[ours.bboxes.tolist()], return_tensors='pt'
    )
    with torch.no_grad():
        outputs = network(
            pixel_values=inputs['pixel_values'],
            input_boxes=inputs['input_boxes'],
            multimask_output=False,
        )
    theirs = processor.post_process_masks(outputs.pred_masks, inputs['original_sizes'])[0][:, 0]
    intersection, union = (ours.masks & theirs).sum((1, 2)), (ours.masks | theirs).sum((1, 2))
    assert torch.equal(intersection, union) and len(ours) >= 8
    assert ours.masks.any() and not ours.masks.all()
    torch.testing.assert_close(ours.mask_quality, outputs.iou_scores[0, :, 0], atol=1e-5, rtol=1e-5)


# Predictions


def test_fields_and_order(model):
    pred = predict(model, image_of((48, 96)))[0]
    number = len(pred)
    assert pred.masks.shape == (number, 48, 96) and pred.masks.dtype == torch.bool
    assert pred.bboxes.shape == (number, 4) and set(pred.labels.tolist()) <= {0, 1, 2}
    assert torch.equal(pred.scores, pred.class_scores) and not torch.equal(
        pred.scores, pred.mask_quality
    )
    assert pred.scores.diff().max() <= 0
    assert (
        pred.bboxes.min() >= 0
        and (pred.bboxes[:, [0, 2]] <= 96).all()
        and (pred.bboxes[:, [1, 3]] <= 48).all()
    )


@pytest.mark.parametrize('sizes', [[(48, 96), (64, 64)], [(48, 96), (48, 96)]], ids=str)
def test_an_image_in_a_batch_has_the_instances_that_it_has_alone(model, sizes):
    images = [image_of(size, seed) for seed, size in enumerate(sizes)]
    for image, pred in zip(images, predict(model, *images)):
        alone = predict(model, image)[0]
        assert pred.masks.shape[1:] == image.shape[:2]
        torch.testing.assert_close(pred.scores, alone.scores)
        torch.testing.assert_close(pred.bboxes, alone.bboxes, atol=1e-3, rtol=1e-4)


def test_rescaling_goes_to_the_original_size(model):
    image = image_of((48, 96))
    inputs = torch.from_numpy(image.transpose(2, 0, 1).copy())

    def at(rescale):
        sample = DetDataSample(metainfo=dict(img_shape=(48, 96), ori_shape=(96, 192)))
        data = model.data_preprocessor(dict(inputs=[inputs], data_samples=[sample]), False)
        with torch.no_grad():
            return model.predict(data['inputs'], data['data_samples'], rescale=rescale)[
                0
            ].pred_instances

    assert at(True).masks.shape[1:] == (96, 192) and at(False).masks.shape[1:] == (48, 96)
    torch.testing.assert_close(at(True).bboxes, at(False).bboxes * 2)


def test_an_image_without_detections_is_empty_and_not_encoded(model):
    with (
        mock.patch.dict(model.grounding_dino.test_cfg, score_thr=1.0),
        mock.patch.object(model.sam2, 'encode', side_effect=AssertionError),
    ):
        pred = predict(model, image_of((48, 96)))[0]
    assert len(pred) == 0 and pred.masks.shape == (0, 48, 96) and pred.bboxes.shape == (0, 4)
    assert pred.mask_quality.shape == pred.scores.shape == (0,)


def test_boxes_outside_the_image_or_without_area_are_dropped_and_others_clipped(model):
    # Centre, width and height: half outside, no width, above the image, whole.
    boxes = torch.tensor(
        [[0.0, 0.5, 0.4, 0.2], [0.5, 0.5, 0.0, 0.3], [0.5, -0.5, 0.2, 0.2], [0.5, 0.5, 1.0, 1.0]]
    )
    tokens = torch.full((1, 1, 4, 48), 2.0)
    with mock.patch.object(
        model.grounding_dino.bbox_head, 'forward', return_value=(tokens, boxes[None, None])
    ):
        pred = predict(model, image_of((48, 96)))[0]
    found = {tuple(round(value, 2) for value in box) for box in pred.bboxes.tolist()}
    assert found == {(0.0, 19.2, 19.2, 28.8), (0.0, 0.0, 96.0, 48.0)}


def test_agreement_is_the_iou_of_the_components_boxes(model):
    pred = predict(model, image_of((48, 96)))[0]
    for box, mask, agreement in zip(
        pred.bboxes.tolist(), pred.masks.numpy(), pred.agreement.tolist()
    ):
        if not mask.any():
            assert agreement == 0
            continue
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        x1, y1, x2, y2 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        both = max(0, min(box[2], x2) - max(box[0], x1)) * max(0, min(box[3], y2) - max(box[1], y1))
        either = (box[2] - box[0]) * (box[3] - box[1]) + (x2 - x1) * (y2 - y1) - both
        assert agreement == pytest.approx(both / either, abs=1e-4)
    assert 0 < pred.agreement.max() <= 1


def test_scores_are_a_product_where_asked_for_and_the_order_is_theirs(model):
    plain = predict(model, image_of((48, 96)))[0]
    with mock.patch.object(model, 'score_factors', ('mask_quality', 'agreement')):
        product = predict(model, image_of((48, 96)))[0]
    expected = plain.scores * plain.mask_quality.clamp(0, 1) * plain.agreement
    torch.testing.assert_close(product.scores, expected.sort(descending=True, stable=True).values)
    torch.testing.assert_close(
        product.scores, product.class_scores * product.mask_quality.clamp(0, 1) * product.agreement
    )


def test_probabilities_are_those_of_the_masks(model):
    with mock.patch.object(model, 'mask_probabilities', True):
        pred = predict(model, image_of((48, 96)))[0]
        with mock.patch.dict(model.grounding_dino.test_cfg, score_thr=1.0):
            empty = predict(model, image_of((48, 96)))[0]
    unsure = (pred.probabilities == 127) | (pred.probabilities == 128)
    assert (
        torch.equal((pred.probabilities > 127) | unsure, pred.masks | unsure) and not unsure.all()
    )
    assert empty.probabilities.shape == (0, 48, 96)


def test_a_box_prompts_again_with_its_own_mask(model):
    """Against the same calls of transformers' network, one box after the other."""
    image = image_of((48, 96))
    plain = predict(model, image)[0]
    with mock.patch.object(model.sam2, 'reprompts', 2):
        refined = predict(model, image)[0]
    network, square = model.sam2.model, plain.bboxes * torch.tensor([64 / 96, 64 / 48] * 2)
    pixels = torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy())[None]
    with torch.no_grad():
        embeddings = model.sam2.encode(pixels)
        for box, mask, quality in zip(square, refined.masks, refined.mask_quality):
            logits = None
            for _ in range(3):
                found = network(
                    image_embeddings=embeddings,
                    input_boxes=box[None, None].clone(),
                    input_masks=logits,
                    multimask_output=False,
                )
                logits = found.pred_masks[:, 0].clamp(-32, 32)
            expected = (
                torch.nn.functional.interpolate(found.pred_masks[0], (48, 96), mode='bilinear')[
                    0, 0
                ]
                > 0
            )
            assert (mask ^ expected).sum() <= 1 and quality.item() == pytest.approx(
                found.iou_scores.item(), abs=1e-4
            )
    assert not torch.equal(plain.masks, refined.masks) and torch.equal(plain.bboxes, refined.bboxes)


def test_an_unknown_score_factor_is_refused(tmp_path):
    with pytest.raises(
        CASTError, match="score_factors=\\('size',\\): use mask_quality and agreement"
    ):
        teacher(tmp_path, score_factors=['size'])


def test_one_encoding_an_image_and_boxes_in_chunks(model):
    calls = []

    def forward(self, *args, **kwargs):
        calls.append(kwargs['input_boxes'].shape[1])
        return decode(self, *args, **kwargs)

    decode = Sam2Model.forward
    with (
        mock.patch.object(Sam2Model, 'forward', forward),
        mock.patch.object(model.sam2, 'encode', wraps=model.sam2.encode) as encode,
    ):
        pred = predict(model, image_of((48, 96)))[0]
    assert encode.call_count == 1 and max(calls) <= 3 and sum(calls) == len(pred)


# Text


def test_the_text_is_read_once_until_the_language_model_changes(tmp_path):
    model = teacher(tmp_path).eval()
    network = model.grounding_dino.language_model
    with mock.patch.object(
        type(network), 'forward', autospec=True, side_effect=type(network).forward
    ) as forward:
        first = [predict(model, image_of(size))[0] for size in SIZES]
        assert forward.call_count == 1
        with torch.no_grad():
            model.load_state_dict(
                {
                    key: value + 0.1 * torch.randn_like(value) if 'body' in key else value
                    for key, value in model.state_dict().items()
                }
            )
        second = predict(model, image_of(SIZES[0]))[0]
        assert forward.call_count == 2
    assert not torch.equal(first[0].scores, second.scores)


@pytest.mark.parametrize('classes_per_prompt', [1, 2])
def test_several_prompts_give_the_scores_that_each_gives_alone(tmp_path, classes_per_prompt):
    """Labels are the data set's, whichever prompt found them."""
    names = ('person', 'rider', 'traffic light', 'bus')
    model = teacher(
        tmp_path, classes=names, box_test_cfg=dict(classes_per_prompt=classes_per_prompt)
    ).eval()
    model.grounding_dino.test_cfg['max_per_img'] = 1000
    merged = predict(model, image_of((48, 96)))[0]
    assert merged.scores.diff().max() <= 0
    for start in range(0, 4, classes_per_prompt):
        group = range(start, start + classes_per_prompt)
        part = build_model(teacher_config(tmp_path, classes=[names[i] for i in group])).eval()
        part.load_state_dict(model.state_dict())
        part.grounding_dino.test_cfg['max_per_img'] = 1000
        alone = predict(part, image_of((48, 96)))[0]
        for i in group:
            torch.testing.assert_close(
                merged.scores[merged.labels == i], alone.scores[alone.labels == i - start]
            )


def test_more_classes_than_the_text_holds_are_asked_for_in_several_prompts(tmp_path):
    """100 names, as ADE20K has, with room for 48 tokens."""
    names = [f'{first}{second}' for first in 'abcdefghij' for second in 'klmnopqrst']
    model = teacher(tmp_path, classes=names).eval()
    prompts = model.grounding_dino.prompts.all
    assert [i for prompt in prompts for i in prompt.classes] == list(range(100)) and len(
        prompts
    ) > 2
    tokenizer = model.grounding_dino.language_model.tokenizer
    assert all(len(tokenizer(prompt.caption).input_ids) <= 48 for prompt in prompts)
    for prompt in prompts:
        ids = tokenizer(prompt.caption).input_ids
        for index, tokens in zip(prompt.classes, prompt.tokens_of_class):
            spelled = tokenizer.decode([ids[i] for i in tokens.nonzero().flatten()]).replace(
                ' ', ''
            )
            assert spelled == names[index]
    assert len(predict(model, image_of((48, 96)))[0]) > 0


@pytest.mark.parametrize(
    'names, message',
    [
        (['person', 'x' * 60], "'xxxx.*' has 61 tokens, the prompt holds 46"),
        (['person', 'St. Bernard'], "'St. Bernard' cannot be prompted"),
        (['person', '(unknown)'], "'\\(unknown\\)' cannot be prompted"),
        (
            ['fire_truck', 'fire truck (red)'],
            "'fire_truck' and 'fire truck \\(red\\)' are both asked for by 'fire truck'",
        ),
        ([], 'none given'),
    ],
    ids=['too long', 'separator', 'empty', 'double', 'none'],
)
def test_classes_that_cannot_be_prompted_are_named(tmp_path, names, message):
    with pytest.raises(CASTError, match=message):
        teacher(tmp_path, classes=names)


def test_a_missing_language_model_says_what_to_download_and_where_to_put_it(tmp_path):
    config = teacher_config(tmp_path)
    config.grounding_dino.language_model.name = 'weights/nothing_here'
    with pytest.raises(
        CASTError, match='download vocab.txt.*huggingface.co/google-bert.*into weights/nothing_here'
    ):
        build_model(config)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(frozen=['grounding_dino', 'sam2']), 'at most one is frozen'),
        (dict(frozen=['sam']), 'the components are'),
        (dict(frozen=['sam2'], pixel_encoder='sam2'), 'at most one is frozen'),
        (dict(data_preprocessor=dict(type='DetDataPreprocessor')), 'set mean and std'),
    ],
    ids=str,
)
def test_contradictory_settings_are_refused(tmp_path, options, message):
    with pytest.raises(CASTError, match=message):
        build_model(teacher_config(tmp_path, **options))


@pytest.mark.parametrize(
    'sam2, message',
    [(dict(size='huge'), "size='huge' is unknown"), (dict(image_size=100), 'multiple of 32')],
    ids=str,
)
def test_an_unknown_sam2_is_refused(sam2, message):
    with pytest.raises(CASTError, match=message):
        MODELS.build(dict(type='BoxPromptedSAM2', **sam2))


@pytest.mark.parametrize(
    'size, millions', [('tiny', 38.9), ('small', 46.0), ('base_plus', 80.8), ('large', 224.4)]
)
def test_sam2_has_the_published_sizes(size, millions):
    """Published with the video memory, which is 8 M (7.7 M in the smaller ones)."""
    network = build_without_memory(dict(type='BoxPromptedSAM2', size=size))
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert millions - 12.5 < parameters < millions


def test_the_full_teacher_has_560_million_parameters(tmp_path):
    """The vocabulary alone is enough to build it: bert-base is the default."""
    config = Config.fromfile(CONFIG).model.detector
    vocabulary = Path(teacher_config(tmp_path).grounding_dino.language_model.name, 'vocab.txt')
    vocabulary.with_name('config.json').unlink()
    config.grounding_dino.language_model.name = str(vocabulary.parent)
    model = build_without_memory(dict(config, classes=CLASSES))
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(
        560e6, rel=0.01
    )


def test_samples_of_the_pipeline_train_and_predict_without_text_of_their_own(model):
    """Data need neither ``text`` nor ``custom_entities``: the classes are the model's."""
    images, samples = make_samples([1], size=(64, 64))
    with torch.no_grad():
        assert 'pred_instances' in model.predict(images, samples)[0]
