import weakref

import numpy as np
import pytest
import torch
from devices import DEVICES
from mmdet.structures import DetDataSample
from mmdet.structures.mask import mask2bbox
from mmengine.structures import InstanceData
from torch.nn import functional as F

from mmcast.errors import CASTError
from mmcast.masks.cropped import CroppedMasks
from mmcast.masks.tiling import Views, Windows
from mmcast.models.student.tiled_prediction import predict_in_windows
from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model, tiny_student_config


def draw(boxes, size=(40, 56)):
    """An image (3, H, W) whose first channel holds the number of the instance, from 1, of every
    pixel.
    """
    image = torch.zeros(3, *size)
    for number, (x1, y1, x2, y2) in enumerate(boxes, start=1):
        image[0, y1:y2, x1:x2] = number
    return image


def see(images, samples, rescale, logits_above):
    """A detector that finds every instance that is drawn; what it sees more of, it is surer of."""
    assert not rescale and logits_above == SCORE_THR
    for image, sample in zip(images, samples):
        assert sample.img_shape == tuple(image.shape[1:])
        numbers = image[0].unique()
        masks = image[0] == numbers[numbers > 0][:, None, None]
        sample.pred_instances = InstanceData(
            masks=masks,
            logits=torch.where(masks, 5.0, -5.0).half(),
            scores=0.5 + masks.flatten(1).sum(1) / 1000,
            labels=masks.new_zeros(len(masks), dtype=torch.long),
            bboxes=mask2bbox(masks),
        )
    return samples


SCORE_THR = Windows(2, 1).score_thr


def predict(image, windows, img_shape=None, ori_shape=None, rescale=False, detector=see):
    size = tuple(image.shape[1:])
    sample = DetDataSample(metainfo=dict(img_shape=img_shape or size, ori_shape=ori_shape or size))
    return predict_in_windows(detector, image[None], [sample], windows, rescale)[0].pred_instances


def as_set(masks):
    return {mask.cpu().numpy().tobytes() for mask in masks}


@pytest.mark.parametrize(
    'length, starts', [(512, [0, 192]), (640, [0, 192, 320]), (320, [0]), (256, [0]), (321, [0, 1])]
)
def test_windows_cover_a_side_and_end_with_it(length, starts):
    assert Windows(320, 128).starts(length) == starts


BOXES = [
    (1, 1, 6, 6),
    (14, 2, 22, 9),
    (20, 20, 28, 28),
    (30, 12, 37, 20),
    (50, 33, 56, 40),
    (9, 30, 16, 38),
]


@pytest.mark.parametrize('device', DEVICES)
def test_every_instance_is_found_once_and_whole(device):
    """Also those that some windows cut: no instance is larger than the overlap."""
    found = predict(draw(BOXES).to(device), Windows(size=24, overlap=12))
    assert as_set(found.masks) == as_set(torch.stack([draw([box])[0] == 1 for box in BOXES]))
    assert len(found) == len(BOXES) and torch.equal(found.bboxes, mask2bbox(found.masks))


def test_a_cut_view_gives_way_to_a_whole_one_that_is_less_sure():
    def timid(images, samples, **options):
        samples = see(images, samples, **options)
        for sample in samples:  # the larger the piece, the less sure
            sample.pred_instances.scores = 1 - sample.pred_instances.scores + 0.2
        return samples

    box = (20, 4, 30, 14)
    found = predict(draw([box]), Windows(size=24, overlap=12), detector=timid)
    assert as_set(found.masks) == as_set([draw([box])[0] == 1])


def test_an_instance_larger_than_a_window_is_put_together():
    box = (2, 2, 54, 38)
    found = predict(draw([box]), Windows(size=24, overlap=4))
    assert len(found) == 1 and torch.equal(found.masks[0], draw([box])[0] == 1)


def test_doubles_of_one_window_are_dropped_and_two_classes_are_not_joined():
    def doubled(images, samples, **options):
        samples = see(images, samples, **options)
        for sample in samples:
            one = sample.pred_instances
            same, other = one.clone(), one.clone()
            other.labels = one.labels + 1
            sample.pred_instances = InstanceData.cat([one, same, other])
        return samples

    found = predict(draw([(2, 2, 8, 8)]), Windows(size=24, overlap=12), detector=doubled)
    assert sorted(found.labels.tolist()) == [0, 1]


def test_doubles_of_one_window_do_not_complete_what_it_cuts():
    """The better one is as it was, though the side of the window cuts both."""

    def twice(images, samples, **options):
        samples = see(images, samples, **options)
        for sample in samples:
            one = sample.pred_instances
            wide = one.clone()
            wide.masks = wide.masks | wide.masks.roll(1, 1)
            wide.logits = torch.where(wide.masks, 5.0, -5.0).half()
            wide.scores = wide.scores - 0.1
            sample.pred_instances = InstanceData.cat([one, wide])
        return samples

    image = draw([(0, 10, 40, 16)], size=(24, 40))  # longer than either window
    found = predict(image, Windows(size=24, overlap=12), detector=twice)
    assert as_set(found.masks) == as_set(image[:1] == 1)


def test_unsure_instances_are_dropped():
    def unsure(images, samples, rescale, logits_above):
        assert logits_above == 0.99
        return see(images, samples, rescale, SCORE_THR)

    assert (
        len(predict(draw(BOXES), Windows(size=24, overlap=12, score_thr=0.99), detector=unsure))
        == 0
    )


def test_an_empty_image_gives_no_instance_of_its_size():
    found = predict(draw([]), Windows(size=24, overlap=12), ori_shape=(20, 28), rescale=True)
    assert found.masks.shape == (0, 20, 28) and found.bboxes.shape == (0, 4)


def test_masks_come_out_without_padding_and_at_the_original_size():
    boxes = [(0, 0, 8, 8), (16, 8, 24, 20)]
    found = predict(
        draw(boxes),
        Windows(size=24, overlap=12),
        img_shape=(36, 48),
        ori_shape=(18, 24),
        rescale=True,
    )
    halved = torch.stack(
        [draw([tuple(side // 2 for side in box)], size=(18, 24))[0] == 1 for box in boxes]
    )
    assert as_set(found.masks) == as_set(halved)


def test_of_a_halved_pixel_the_surer_half_decides():
    """Borders after odd pixels, left and right, of boxes 5 wide: one loses its half pixels and one
    gains them.
    """
    boxes = [(3, 4, 8, 8), (15, 4, 20, 8)]
    logits = {
        3: (-0.5, 0.25),
        7: (0.25, -0.5),
        15: (-0.25, 0.5),
        19: (0.5, -0.25),
    }  # of the pixel pairs at the borders

    def soft(images, samples, **options):
        samples = see(images, samples, **options)
        for sample in samples:
            found = sample.pred_instances
            for number, edges in enumerate(((3, 7), (15, 19))):
                for edge in edges:
                    left = edge // 2 * 2
                    found.logits[number, 4:8, left : left + 2] = torch.tensor(logits[edge]).half()
        return samples

    found = predict(
        draw(boxes, (24, 24)),
        Windows(size=24, overlap=12),
        ori_shape=(12, 12),
        rescale=True,
        detector=soft,
    )
    expected = [draw([box], (12, 12))[0] == 1 for box in [(2, 2, 3, 4), (7, 2, 10, 4)]]
    assert as_set(found.masks) == as_set(torch.stack(expected))


@pytest.mark.parametrize('batch_size, batches', [(1, [1] * 12), (5, [5, 5, 2]), (50, [12])])
def test_no_more_windows_than_allowed_go_through_at_a_time(batch_size, batches):
    """And what is found does not depend on it."""
    seen = []

    def count(images, samples, **options):
        seen.append(len(images))
        return see(images, samples, **options)

    found = predict(draw(BOXES), Windows(24, 12, batch_size=batch_size), detector=count)
    assert seen == batches
    expected = predict(draw(BOXES), Windows(24, 12))
    assert torch.equal(found.masks, expected.masks) and torch.equal(found.scores, expected.scores)


def test_the_networks_predictions_do_not_depend_on_the_number_of_windows_at_a_time():
    detector = build_model(tiny_student_config()).eval()
    images, samples = make_samples([1], size=(96, 128))
    found = []
    for batch_size in (1, 4, 100):
        detector.test_cfg.windows = dict(size=48, overlap=16, score_thr=0.0, batch_size=batch_size)
        found.append(detector.predict(images, [samples[0].clone()])[0].pred_instances)
    for other in found[1:]:
        assert len(found[0]) and torch.equal(found[0].labels, other.labels)
        torch.testing.assert_close(found[0].scores, other.scores)
        assert (found[0].masks != other.masks).float().mean() < 1e-4  # logits within rounding of 0


def test_no_window_at_a_time_is_refused():
    with pytest.raises(CASTError, match='batch_size 0 must be at least 1'):
        Windows(size=24, overlap=12, batch_size=0)


@pytest.mark.parametrize('overlap', [-1, 24, 30])
def test_impossible_overlap_is_refused(overlap):
    with pytest.raises(CASTError, match=f'overlap {overlap} must be from 0 to less than size 24'):
        Windows(size=24, overlap=overlap)


def without_doubles(found):
    """The slow way: in the order of scores, whatever overlaps no better one of its class with IoU
    above 1/2.
    """
    kept = []
    for i in found.scores.argsort(descending=True, stable=True).tolist():
        masks = [
            (found.masks[i], found.masks[j]) for j in kept if found.labels[i] == found.labels[j]
        ]
        if all((one & other).sum() <= 0.5 * (one | other).sum() for one, other in masks):
            kept.append(i)
    return found[kept]


@pytest.mark.parametrize('rescale', [False, True])
def test_of_an_image_no_larger_than_a_window_doubles_go_and_the_rest_stays(rescale):
    """The detector itself: same scores, labels and masks as without windows."""
    torch.manual_seed(0)
    detector = build_model(tiny_student_config()).eval()
    images, samples = make_samples([1])
    with torch.no_grad():
        plain = detector.predict(images, [sample.clone() for sample in samples], rescale=rescale)
        detector.test_cfg.windows = dict(size=64, overlap=16, score_thr=0.0)
        windowed = detector.predict(images, samples, rescale=rescale)
    for one, other in zip(plain, windowed):
        one, other = one.pred_instances, other.pred_instances
        one = one[one.masks.flatten(1).any(1)]
        one = without_doubles(one)
        one, other = (part[part.scores.argsort(stable=True)] for part in (one, other))
        assert (
            len(one) > 0
            and torch.equal(one.scores, other.scores)
            and torch.equal(one.labels, other.labels)
        )
        assert as_set(one.masks) == as_set(other.masks)


@pytest.mark.parametrize('setting', [dict(panoptic_on=True), dict(instance_on=False)])
def test_windows_of_other_things_than_instances_are_refused(setting):
    detector = build_model(tiny_student_config()).eval()
    detector.test_cfg.update(windows=dict(size=64, overlap=16))
    detector.panoptic_fusion_head.test_cfg.update(setting)
    with pytest.raises(CASTError, match=r'test_cfg.panoptic_on=False, or test_cfg.windows=None'):
        detector.predict(*make_samples([1]))


def soft(seed):
    """A detector of blurred pieces: logits of several views of an instance differ, as do masks."""
    generator = torch.Generator().manual_seed(seed)

    def detect(images, samples, **options):
        samples = see(images, samples, **options)
        for sample in samples:
            found = sample.pred_instances
            noise = torch.randn(found.masks.shape, generator=generator)
            drawn = torch.where(found.masks, 2.0, -2.0) + noise
            found.logits = F.avg_pool2d(drawn[None], 3, 1, 1)[0].half() if len(found) else drawn
            found.masks = found.logits > 0
        return samples

    return detect


def on_whole_images(image, detector, windows, img_shape, wanted):
    """The plain way: every window's masks and logits are kept, and pasted on the whole image."""
    size = tuple(image.shape[1:])
    logits, masks, scores, corners = [], [], [], []
    for place in windows.places(size):
        crop = image[:, place[0] : place[0] + windows.size, place[1] : place[1] + windows.size]
        sample = DetDataSample(metainfo=dict(img_shape=tuple(crop.shape[1:])))
        found = detector(crop[None], [sample], rescale=False, logits_above=SCORE_THR)[0]
        for mask, logit, score in zip(
            *map(found.pred_instances.get, ('masks', 'logits', 'scores'))
        ):
            if mask.any():
                canvas = torch.full(size, -20.0)
                there = (
                    slice(place[0], place[0] + windows.size),
                    slice(place[1], place[1] + windows.size),
                )
                canvas[there] = logit.float()
                logits.append(canvas)
                masks.append(torch.zeros(size, dtype=torch.bool))
                masks[-1][there] = mask
                scores.append(float(score))
                corners.append(place)
    views = Views(
        CroppedMasks.of([mask.numpy() for mask in masks], size),
        np.array(scores),
        np.zeros(len(scores)),
        np.array(corners),
        windows.size,
    )
    pasted = []
    for group in views.groups():
        whole = torch.stack([logits[i] for i in group]).amax(0)[: img_shape[0], : img_shape[1]]
        mask = F.interpolate(whole[None, None], wanted, mode='bilinear')[0, 0] > 0
        if mask.any():
            pasted.append(mask)
    return torch.stack(pasted)


LONG = (2, 2, 54, 38)  # cut by every window


@pytest.mark.parametrize('wanted', [(36, 50), (72, 100), (18, 25), (47, 61), (23, 90)])
@pytest.mark.parametrize('boxes', [BOXES, [LONG]])
def test_masks_are_bit_by_bit_those_of_whole_images(boxes, wanted):
    windows, img_shape = Windows(size=24, overlap=12), (36, 50)
    image = draw(boxes)
    expected = on_whole_images(image, soft(0), windows, img_shape, wanted)
    found = predict(image, windows, img_shape, wanted, rescale=True, detector=soft(0))
    assert torch.equal(found.masks, expected)
    assert torch.equal(found.bboxes, mask2bbox(expected))


def test_cropped_masks_are_the_same_masks():
    sample = DetDataSample(metainfo=dict(img_shape=(40, 56), ori_shape=(40, 56)))
    windows, image = Windows(size=24, overlap=12), draw(BOXES)
    (found,) = predict_in_windows(see, image[None], [sample], windows, True, cropped=True)
    expected = predict(image, windows)
    assert np.array_equal(found.pred_instances.masks.to_array(), expected.masks.numpy())
    assert torch.equal(found.pred_instances.bboxes, expected.bboxes)


def test_no_more_windows_are_in_memory_than_go_through_at_a_time():
    """Of earlier ones, nothing is left but what is cut out of their masks."""
    arrays, alive = [], []

    class Array(torch.Tensor):
        """Is followed, and so is whatever is made of it."""

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            result = super().__torch_function__(function, types, args, kwargs or {})
            if isinstance(result, cls):
                arrays.append(weakref.ref(result))
            return result

    def followed(images, samples, **options):
        there = [array() for array in arrays]
        alive.append(sum(each is not None and each.shape[-2:] == (24, 24) for each in there))
        samples = see(images, samples, **options)
        for sample in samples:
            for name in ('masks', 'logits'):
                sample.pred_instances[name] = sample.pred_instances[name].as_subclass(Array)
        return samples

    found = predict(draw(BOXES), Windows(size=24, overlap=12, batch_size=2), detector=followed)
    assert len(found) == len(BOXES) and len(alive) == 6
    assert max(alive) <= 2 * 2 * 2  # masks and logits of a batch, and of its kept instances
