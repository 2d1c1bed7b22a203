"""The head's losses, all layers in one batch, against mmdet's own layer by layer."""

from unittest import mock

import numpy as np
import pytest
import torch
from mmdet.models.dense_heads import Mask2FormerHead
from mmengine.structures import InstanceData

from mmcast.errors import NonFiniteError
from mmcast.models.student import mask2former_head
from mmcast.models.student.lazy_masks import LazyMasks
from mmcast.testing.data import make_samples, same_points
from mmcast.testing.models import build_model, tiny_student_config

LAYERS, QUERIES, CLASSES = 3, 5, 3


@pytest.fixture(scope='module')
def head():
    return build_model(tiny_student_config(CLASSES, QUERIES)).panoptic_head


def random_outputs(num_images, seed=0):
    """Class logits of every layer, mask embeddings and pixel features."""
    generator = torch.Generator().manual_seed(seed)
    queries = LAYERS, num_images, QUERIES
    shapes = [(*queries, CLASSES + 1), (*queries, 4), (num_images, 4, 16, 16)]
    return [torch.randn(shape, generator=generator).mul(2).requires_grad_() for shape in shapes]


def loss_by_feat(head, outputs, samples):
    gt = head.preprocess_gt([s.gt_instances for s in samples], [None] * len(samples))
    return head.loss_by_feat(
        list(outputs[0]), LazyMasks(*outputs[1:]), gt, [s.metainfo for s in samples]
    )


def losses_and_gradients(head, outputs, samples, stock):
    with same_points():
        if stock:  # which gets the same masks as tensors
            gt = head.preprocess_gt([s.gt_instances for s in samples], [None] * len(samples))
            masks = torch.einsum('lbkc,bchw->lbkhw', *outputs[1:])
            losses = Mask2FormerHead.loss_by_feat(
                head, list(outputs[0]), list(masks), gt, [s.metainfo for s in samples]
            )
        else:
            losses = loss_by_feat(head, outputs, samples)
    losses = {
        name: loss.squeeze() for name, loss in losses.items()
    }  # some of mmdet's have one entry
    # Different weights, so that no two terms can be swapped.
    total = sum(weight * loss for weight, loss in enumerate(losses.values(), 1))
    return losses, torch.autograd.grad(total, outputs)


@pytest.mark.parametrize(
    'objects',
    [[2, 4, 1], [3, 0, 2], [0, 0], [1], [QUERIES, QUERIES + 3, 0], [QUERIES + 4]],
    ids=str,
)
def test_values_and_gradients_are_mmdets_at_the_same_points(head, objects):
    """No object, in one image or all, and more objects than queries included."""
    samples = make_samples(objects, num_classes=CLASSES, seed=len(objects))[1]
    outputs = random_outputs(len(objects))
    ours, our_gradients = losses_and_gradients(head, outputs, samples, stock=False)
    theirs, their_gradients = losses_and_gradients(head, outputs, samples, stock=True)
    assert list(ours) == list(theirs)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(our_gradients, their_gradients):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('num_images, size', [(1, (64, 64)), (2, (48, 80))])
def test_decoded_values_and_gradients_are_those_of_mmdets_forward(num_images, size):
    student = build_model(tiny_student_config())
    images, samples = make_samples([2] * num_images, size=size)
    results = []
    for forward in (type(student.panoptic_head).forward, Mask2FormerHead.forward):
        student.zero_grad()
        classes, masks = forward(student.panoptic_head, student.extract_feat(images), samples)
        weights = torch.linspace(-1, 1, sum(part.numel() for part in (*classes, *masks)))
        (torch.cat([part.flatten() for part in (*classes, *masks)]) * weights).sum().backward()
        results.append([*classes, *masks, *(p.grad for p in student.parameters())])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_whole_step_equals_mmdets_detector_with_its_own_head():
    """Same modules, weights, batch and points; only forward and losses are the other's."""
    student = build_model(tiny_student_config())
    images, samples = make_samples([3, 1])
    head = student.panoptic_head
    with same_points():
        ours = student.loss(images, samples)
        classes, masks = Mask2FormerHead.forward(head, student.extract_feat(images), samples)
        gt = head.preprocess_gt([s.gt_instances for s in samples], [None] * 2)
        theirs = Mask2FormerHead.loss_by_feat(
            head, classes, masks, gt, [s.metainfo for s in samples]
        )
    assert set(ours) == set(theirs)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name].squeeze(), rtol=1e-4, atol=1e-4)


def test_a_query_without_any_pixel_attends_to_all_of_them():
    student = build_model(tiny_student_config())
    with torch.no_grad():
        student.panoptic_head.mask_embed[-1].weight.zero_()
        student.panoptic_head.mask_embed[-1].bias.zero_()
        images = make_samples([1])[0]
        mask_features, memories = student.panoptic_head.pixel_decoder(student.extract_feat(images))
        nowhere = torch.full_like(mask_features, -1)
        everywhere = student.panoptic_head.decode(nowhere, memories)[0][
            -1
        ]  # logits of 0 allow every pixel
        student.panoptic_head.mask_embed[-1].bias.fill_(100.0)  # and negative ones none
        torch.testing.assert_close(
            student.panoptic_head.decode(nowhere, memories)[0][-1], everywhere
        )


def test_masks_read_like_a_list_of_tensors():
    masks = LazyMasks(torch.randn(3, 2, 5, 4), torch.randn(2, 4, 6, 7))
    dense = torch.einsum('lbkc,bchw->lbkhw', masks.embeds, masks.features)
    torch.testing.assert_close(torch.stack(list(masks)), dense)
    torch.testing.assert_close(masks.select([1])[-1], dense[-1, 1:])
    torch.testing.assert_close(
        masks.at(torch.tensor([[0.5 / 7, 0.5 / 6]]), 1)[..., 0], dense[:, 1, :, 0, 0]
    )
    queries = torch.tensor([[0, 4, 2], [1, 1, 3], [4, 0, 0]])
    chosen = masks.of(queries, [1, 2])
    for layer in range(3):
        for i, image in enumerate([0, 1, 1]):
            torch.testing.assert_close(chosen[layer, i], dense[layer, image, queries[layer, i]])


def test_matching_of_two_objects_by_hand(head):
    """Query 3 is the left half and class 1, query 0 the right half and class 2, others nothing."""
    left = np.zeros((16, 16), dtype=np.uint8)
    left[:, :8] = 1
    # Pixel feature (1, side) with side 1 left and -1 right; embeddings (-9, 0), (0, 9) and (0, -9).
    side = torch.from_numpy(left) * 2.0 - 1
    masks = LazyMasks(
        torch.tensor([[-9.0, 0.0]]).repeat(1, 1, QUERIES, 1), torch.stack([side**2, side])[None]
    )
    masks.embeds[0, 0, 3], masks.embeds[0, 0, 0] = (
        torch.tensor([0.0, 9.0]),
        torch.tensor([0.0, -9.0]),
    )
    classes = torch.zeros(1, 1, QUERIES, CLASSES + 1)
    classes[0, 0, 3, 1] = classes[0, 0, 0, 2] = 4.0
    gt = InstanceData(
        labels=torch.tensor([1, 2]), masks=torch.from_numpy(np.stack([left, 1 - left])).float()
    )
    query_of_gt, matched = head._match(classes, masks, [gt], [{}])
    assert query_of_gt.tolist() == [[3, 0]] and matched.all()


def test_class_loss_by_hand(head):
    """All logits equal: log 4 for every query, weighted 1 for the object and 0.1 for "no object",
    times 2.
    """
    samples = make_samples([1], num_classes=CLASSES)[1]
    losses = loss_by_feat(
        head,
        [
            torch.zeros(1, 1, QUERIES, CLASSES + 1),
            torch.zeros(1, 1, QUERIES, 4),
            torch.zeros(1, 4, 16, 16),
        ],
        samples,
    )
    assert losses['loss_cls'] == pytest.approx(2 * np.log(4))
    assert losses['loss_mask'] == pytest.approx(5 * np.log(2))


def test_half_precision_outputs_give_full_precision_losses(head):
    samples = make_samples([2, 1], num_classes=CLASSES)[1]
    losses = loss_by_feat(head, [part.detach().bfloat16() for part in random_outputs(2)], samples)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


def test_matching_costs_do_not_overflow_in_mixed_precision(head, monkeypatch):
    """4,096 points with logits about 100 sum up to more than float16 can hold."""
    monkeypatch.setattr(head, 'num_points', 4096)
    samples = make_samples([2, 1], num_classes=CLASSES)[1]
    outputs = [part.detach() for part in random_outputs(2)]
    outputs[2] = outputs[2].abs() * 10
    with torch.autocast('cpu', dtype=torch.float16):
        losses = loss_by_feat(head, outputs, samples)
    assert all(loss.isfinite() for loss in losses.values())


def test_non_finite_logits_are_reported_with_the_images(head):
    samples = make_samples([1, 2], num_classes=CLASSES)[1]
    outputs = random_outputs(2)
    with torch.no_grad():
        outputs[1][0, 1, 2] = float('nan')
    with pytest.raises(
        NonFiniteError, match='not finite: matching cost on the images image_1.png;'
    ):
        loss_by_feat(head, outputs, samples)


def test_losses_on_a_part_are_those_of_that_part_alone():
    """One forward pass, losses of images 2 and 0, in this order."""
    student = build_model(tiny_student_config())
    images, samples = make_samples([2, 3, 1])
    with same_points():
        part = student.loss_on(student.forward_once(images, samples), samples, [2, 0])
        alone = student.loss(images[[2, 0]], [samples[2], samples[0]])
    for name in alone:
        torch.testing.assert_close(part[name], alone[name])


def test_zeros_of_an_empty_part_have_the_same_names_and_a_graph():
    student = build_model(tiny_student_config())
    images, samples = make_samples([2])
    outputs = student.forward_once(images, samples)
    empty = student.loss_on(outputs, samples, [])
    assert set(empty) == set(student.loss_on(outputs, samples, [0]))
    assert all(loss == 0 and loss.requires_grad for loss in empty.values())
    sum(empty.values()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in student.parameters())


def test_an_empty_part_takes_its_share_in_the_reduction_over_ranks():
    """As many calls with as many numbers as a part with images, or the ranks would wait for each
    other.
    """
    student = build_model(tiny_student_config())
    images, samples = make_samples([2])
    outputs = student.forward_once(images, samples)
    shapes = []
    for indices in ([0], []):
        with mock.patch.object(mask2former_head, 'reduce_mean', side_effect=lambda x: x) as reduce:
            student.loss_on(outputs, samples, indices)
        shapes.append([(call.args[0].shape, call.args[0].dtype) for call in reduce.call_args_list])
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize('count', [0, 1, 5, 12])
def test_indices_of_least_are_those_of_a_sort(count):
    values = torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(0))
    found = mask2former_head.indices_of_least(values, count)
    expected = values.sort(dim=2).indices[..., :count]
    assert torch.equal(found.sort(dim=2).values, expected.sort(dim=2).values)
