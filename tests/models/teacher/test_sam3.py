"""SAM3's predictions: those of transformers' processor, network and post-processing, asked for one
class after the other.
"""

from unittest import mock

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from tiny_sam3 import CLASSES, sam3
from transformers import CLIPTokenizer, Sam3ImageProcessor, Sam3Model, Sam3Processor

from mmcast.errors import CASTError
from mmcast.models.teacher.prompted_sam3 import PromptedSAM3

SIZES = [(48, 96), (90, 60), (64, 64)]  # height and width: landscape, portrait, square


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('sam3')


@pytest.fixture(scope='module')
def model(folder):
    return sam3(folder).eval()


def image_of(size, seed=0):
    """A BGR image (H, W, 3) of uint8, as it is loaded."""
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


# Equality with the library


class Library:
    """transformers' processor, network and post-processing with a model's weights."""

    def __init__(self, model, folder):
        size = dict(height=model.network.image_size, width=model.network.image_size)
        tokenizer = CLIPTokenizer.from_pretrained(folder / 'clip')
        self.processor = Sam3Processor(Sam3ImageProcessor(size=size), tokenizer)
        self.network = Sam3Model(model.network.config).eval()
        self.network.load_state_dict(model.network.state_dict())  # strict: the names are the same

    def __call__(self, image, text, threshold=0.0, **prompts):
        rgb = image[..., ::-1].copy()
        inputs = self.processor(images=rgb, text=text, return_tensors='pt')
        with torch.no_grad():
            names = ('pixel_values', 'input_ids', 'attention_mask')
            outputs = self.network(**{name: inputs[name] for name in names}, **prompts)
        found = self.processor.post_process_instance_segmentation(
            outputs, threshold=threshold, target_sizes=[image.shape[:2]]
        )[0]
        return dict(found, presence=outputs.presence_logits.sigmoid().item())


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_predictions_are_those_of_transformers_processor_and_network(model, folder, size):
    """Of the best over all classes; boxes end at the image's border."""
    image, library = image_of(size), Library(model, folder)
    theirs = [dict(library(image, text), label=label) for label, text in enumerate(CLASSES)]
    rows = [
        (score.item(), each['label'], box, mask.bool(), each['presence'])
        for each in theirs
        for score, box, mask in zip(each['scores'], each['boxes'], each['masks'])
    ]
    rows = sorted(rows, key=lambda row: -row[0])
    assert len(rows) == 36
    pred = predict(model, image)[0]
    scores, labels, boxes, masks, presence = zip(*rows[:12])
    torch.testing.assert_close(pred.scores, torch.tensor(scores), atol=1e-6, rtol=1e-5)
    border = torch.tensor([size[1], size[0]] * 2)
    expected = torch.stack(boxes).clamp(min=0).minimum(border)
    torch.testing.assert_close(pred.bboxes, expected, atol=1e-3, rtol=1e-4)
    assert pred.labels.tolist() == list(labels)
    assert torch.equal(pred.masks, torch.stack(masks))
    assert pred.masks.any() and not pred.masks.all()
    torch.testing.assert_close(pred.class_scores, torch.tensor(presence), atol=1e-6, rtol=1e-5)


def test_a_score_threshold_leaves_what_the_library_leaves(model, folder):
    image, library = image_of(SIZES[0]), Library(model, folder)
    threshold = float(predict(model, image)[0].scores[7])
    with mock.patch.dict(model.test_cfg, score_thr=threshold, max_per_img=100):
        pred = predict(model, image)[0]
    assert len(pred) == 7
    assert len(pred) == sum(len(library(image, text, threshold)['scores']) for text in CLASSES)
    with mock.patch.dict(model.test_cfg, score_thr=1.0):
        nothing = predict(model, image)[0]
    assert nothing.masks.shape == (0, 48, 96) and nothing.bboxes.shape == (0, 4)
    assert nothing.agreement.shape == nothing.mask_quality.shape == nothing.scores.shape == (0,)


def test_the_geometry_token_is_what_the_library_makes_of_a_box_that_is_padding(model, folder):
    """Its way to a prompt without boxes; of a text alone it reads no such token."""
    image, token = image_of(SIZES[0]), sam3(folder, geometry_token=True).eval()
    padding = dict(input_boxes=torch.zeros(1, 1, 4), input_boxes_labels=torch.tensor([[-10]]))
    library = Library(token, folder)
    scores = torch.cat([library(image, text, **padding)['scores'] for text in CLASSES])
    pred = predict(token, image)[0]
    torch.testing.assert_close(pred.scores, scores.sort(descending=True).values[:12])
    without = predict(model, image)[0].scores
    assert (pred.scores - without).abs().max() > 1e-4


@pytest.mark.parametrize('chunk', [1, 2, 3])
def test_chunks_of_texts_do_not_matter(model, chunk):
    with mock.patch.object(model, 'texts_per_chunk', 50):
        expected = predict(model, image_of(SIZES[0]))[0]
    with mock.patch.object(model, 'texts_per_chunk', chunk):
        pred = predict(model, image_of(SIZES[0]))[0]
    assert torch.equal(pred.labels, expected.labels) and torch.equal(pred.masks, expected.masks)
    torch.testing.assert_close(pred.scores, expected.scores)


def test_images_of_a_batch_have_the_instances_that_they_have_alone(model):
    images = [image_of(size, seed) for seed, size in enumerate(SIZES)]
    for image, pred in zip(images, predict(model, *images)):
        alone = predict(model, image)[0]
        torch.testing.assert_close(pred.scores, alone.scores)
        assert pred.masks.shape[1:] == image.shape[:2]


def test_rescaling_goes_to_the_original_size(model):
    inputs = torch.from_numpy(image_of((48, 96)).transpose(2, 0, 1).copy())

    def at(rescale):
        sample = DetDataSample(metainfo=dict(img_shape=(48, 96), ori_shape=(96, 192)))
        data = model.data_preprocessor(dict(inputs=[inputs], data_samples=[sample]), False)
        with torch.no_grad():
            return model.predict(data['inputs'], data['data_samples'], rescale)[0].pred_instances

    assert at(True).masks.shape[1:] == (96, 192) and at(False).masks.shape[1:] == (48, 96)
    torch.testing.assert_close(at(True).bboxes, at(False).bboxes * 2)


# What is computed how often


def test_an_image_is_encoded_once_and_texts_are_read_once(folder):
    """Twenty classes, two images; in chunks of two texts, and masks of one text at a time."""
    names = [f'{a} {b}' for a in 'abcd' for b in 'klmno']
    model = sam3(folder / 'twenty', classes=names, test_cfg=dict(max_per_img=5)).eval()
    network, seen = model.network, []
    calls = {
        name: mock.patch.object(
            getattr(network, name), 'forward', wraps=getattr(network, name).forward
        )
        for name in ('vision_encoder', 'text_encoder', 'detr_decoder', 'mask_decoder')
    }
    with calls['vision_encoder'] as vision, calls['text_encoder'] as text:
        with calls['detr_decoder'] as detr, calls['mask_decoder'] as masks:
            for seed in range(2):
                pred = predict(model, image_of(SIZES[0], seed))[0]
                seen.append((vision.call_count, text.call_count, detr.call_count))
    assert seen == [(1, 1, 10), (2, 1, 20)] and len(pred) == 5
    assert text.call_args.kwargs['input_ids'].shape == (20, 32)
    shapes = [call.kwargs['decoder_queries'].shape for call in masks.call_args_list]
    assert all(shape[0] == 1 and shape[1] <= 5 for shape in shapes) and len(shapes) < 40


def test_texts_are_read_again_when_the_text_encoder_has_changed(folder):
    model = sam3(folder / 'change').eval()
    encoder = type(model.network.text_encoder)
    with mock.patch.object(encoder, 'forward', autospec=True, side_effect=encoder.forward) as read:
        first = predict(model, image_of(SIZES[0]))[0]
        assert torch.equal(predict(model, image_of(SIZES[0]))[0].scores, first.scores)
        assert read.call_count == 1
        model.load_state_dict(
            {
                key: value + torch.randn_like(value) if 'text_model' in key else value
                for key, value in model.state_dict().items()
            }
        )
        second = predict(model, image_of(SIZES[0]))[0]
        assert read.call_count == 2 and not torch.equal(first.scores, second.scores)


# Prompts


def test_synonyms_find_an_object_once_with_the_highest_score(folder):
    """Against a loop over what each text finds by itself, at the size of the network's masks."""
    image, texts = image_of((16, 16)), ('man', 'pedestrian')
    options = dict(classes=['person', 'car'], test_cfg=dict(max_per_img=100))
    rows = []
    for text in texts:
        found = predict(sam3(folder, **options, prompts=dict(person=text)).eval(), image)[0]
        found = found[found.labels == 0]
        rows += [(s.item(), text, m) for s, m in zip(found.scores, found.masks)]
    rows = sorted(rows, key=lambda row: -row[0])

    def iou(one, other):
        return ((one & other).sum() / (one | other).sum().clamp(min=1)).item()

    between = sorted(iou(a[2], b[2]) for a in rows for b in rows if a[1] < b[1])
    threshold = between[len(between) // 2]
    kept = []
    for score, text, mask in rows:
        if not any(text != other[1] and iou(mask, other[2]) >= threshold for other in kept):
            kept.append((score, text, mask))
    both = sam3(folder, **options, prompts=dict(person=list(texts))).eval()
    assert both.texts.texts == [*texts, 'car'] and both.texts.labels.tolist() == [0, 0, 1]
    both.test_cfg['synonym_iou'] = threshold
    pred = predict(both, image)[0]
    assert (pred.labels == 1).sum() == 12  # a class of one text keeps all that it finds
    pred = pred[pred.labels == 0]
    assert 2 < len(kept) < 24 and len({row[1] for row in kept}) == 2
    torch.testing.assert_close(pred.scores, torch.tensor([row[0] for row in kept]))
    assert torch.equal(pred.masks, torch.stack([row[2] for row in kept]))


def test_the_label_is_the_class_whatever_it_is_called(folder):
    """A class by another text is what a class of that name is."""
    named = sam3(folder, classes=['a', 'traffic light'])
    prompted = sam3(folder, classes=['a', 'ampel'], prompts=dict(ampel='traffic_light'))
    expected, pred = (predict(each.eval(), image_of(SIZES[1]))[0] for each in (named, prompted))
    assert torch.equal(expected.scores, pred.scores) and torch.equal(expected.labels, pred.labels)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(classes=['a', 'A']), "'a' and 'A' are both asked for by 'A'"),
        (dict(classes=['a b', 'c'], prompts=dict(c=['x', 'a_b'])), "asked for by 'a b'"),
        (
            dict(classes=['(a)']),
            r"'\(a\)' cannot be prompted: it must have letters outside of brackets;",
        ),
        (dict(classes=['a ' * 40]), 'has 40 tokens, a prompt holds 30'),
        (dict(classes=[]), 'none given'),
        (dict(classes=['a'], prompts=dict(b='c')), "no class 'b'"),
        (dict(tokenizer='weights/none'), 'download vocab.json and merges.txt from https'),
        (dict(frozen=['sam2']), "frozen has no 'sam2'"),
        (dict(score_factors=['size']), "score_factors has no 'size'"),
        (dict(test_cfg=dict(score=1)), "test_cfg has no 'score'"),
        (dict(loss_weights=dict(giou=1)), "loss_weights has no 'giou'"),
        (dict(image_size=1000), 'image_size=1000 must be a multiple of 14'),
        (dict(data_preprocessor=dict(type='DetDataPreprocessor')), 'set mean and std'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_what_cannot_be_used_is_refused(folder, options, message):
    with pytest.raises(CASTError, match=message):
        sam3(folder / 'refused', **options)


def test_an_empty_folder_says_which_files_belong_there(folder):
    (folder / 'empty').mkdir()
    with pytest.raises(CASTError, match='vocab.json and merges.txt in .*empty not found'):
        sam3(folder / 'refused', tokenizer=str(folder / 'empty'))


# Scores and masks


def test_agreement_is_the_iou_of_sam3s_box_and_that_of_its_mask(model):
    pred = predict(model, image_of((48, 96)))[0]
    assert pred.mask_quality.min() >= 0.5 and pred.mask_quality.max() <= 1
    for box, mask, agreement in zip(pred.bboxes.tolist(), pred.masks, pred.agreement.tolist()):
        rows, columns = (mask.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
        if not rows:
            assert agreement == 0
            continue
        x1, y1, x2, y2 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        both = max(0, min(box[2], x2) - max(box[0], x1)) * max(0, min(box[3], y2) - max(box[1], y1))
        either = (box[2] - box[0]) * (box[3] - box[1]) + (x2 - x1) * (y2 - y1) - both
        assert agreement == pytest.approx(both / either, abs=1e-4)


def test_mask_quality_is_the_mean_probability_of_the_masks_pixels(model):
    logits = torch.tensor([[[2.0, -1.0], [0.5, -3.0]]]).repeat_interleave(8, 1)
    logits = logits.repeat_interleave(8, 2)
    with mock.patch.object(PromptedSAM3, 'masks', lambda *args: logits[: len(args[-1])]):
        with mock.patch.dict(model.test_cfg, max_per_img=1):
            pred = predict(model, image_of((48, 96)))[0]
    expected = (1 / (1 + np.exp(-2.0)) + 1 / (1 + np.exp(-0.5))) / 2
    assert pred.mask_quality.tolist() == pytest.approx([expected], abs=1e-6)


def test_scores_are_a_product_where_asked_for_and_the_order_is_theirs(model):
    plain = predict(model, image_of((48, 96)))[0]
    with mock.patch.object(model, 'score_factors', ('mask_quality', 'agreement')):
        product = predict(model, image_of((48, 96)))[0]
    expected = plain.scores * plain.mask_quality * plain.agreement
    torch.testing.assert_close(product.scores, expected.sort(descending=True, stable=True).values)


def test_probabilities_are_those_of_the_masks(model):
    """At a size where nothing is enlarged or reduced in between."""
    with mock.patch.object(model, 'mask_probabilities', True):
        pred = predict(model, image_of((48, 96)))[0]
        with mock.patch.dict(model.test_cfg, score_thr=1.0):
            empty = predict(model, image_of((48, 96)))[0]
    unsure = (pred.probabilities == 127) | (pred.probabilities == 128)
    assert torch.equal((pred.probabilities > 127) | unsure, pred.masks | unsure)
    assert empty.probabilities.shape == (0, 48, 96)
