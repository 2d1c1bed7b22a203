"""The head's losses, all layers in one batch, against mmdet's own layer by layer."""
from unittest import mock

import numpy as np
import pytest
import torch
from mmdet.models.dense_heads import Mask2FormerHead
from mmengine.structures import InstanceData

from mmcast.errors import NonFiniteError
from mmcast.models.detectors import cast_mask2former
from mmcast.testing import build_model, make_samples, same_points, tiny_student_config

LAYERS, QUERIES, CLASSES = 3, 5, 3


@pytest.fixture(scope='module')
def head():
    return build_model(tiny_student_config(CLASSES, QUERIES)).panoptic_head


def random_outputs(num_images, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(num_images, QUERIES, *shape, generator=generator).mul(2).requires_grad_()
             for _ in range(LAYERS)] for shape in [(CLASSES + 1, ), (16, 16)]]


def losses_and_gradients(loss_by_feat, head, outputs, samples):
    gt = head.preprocess_gt([s.gt_instances for s in samples], [None] * len(samples))
    with same_points():
        losses = loss_by_feat(head, *outputs, gt, [s.metainfo for s in samples])
    losses = {name: loss.squeeze() for name, loss in losses.items()}  # some of mmdet's have one entry
    # Different weights, so that no two terms can be swapped.
    total = sum(weight * loss for weight, loss in enumerate(losses.values(), 1))
    return losses, torch.autograd.grad(total, [*outputs[0], *outputs[1]])


@pytest.mark.parametrize('objects', [
    [2, 4, 1], [3, 0, 2], [0, 0], [1], [QUERIES, QUERIES + 3, 0], [QUERIES + 4]], ids=str)
def test_values_and_gradients_are_mmdets_at_the_same_points(head, objects):
    """No object, in one image or all, and more objects than queries included."""
    samples = make_samples(objects, num_classes=CLASSES, seed=len(objects))[1]
    outputs = random_outputs(len(objects))
    ours, our_gradients = losses_and_gradients(type(head).loss_by_feat, head, outputs, samples)
    theirs, their_gradients = losses_and_gradients(Mask2FormerHead.loss_by_feat, head, outputs, samples)
    assert list(ours) == list(theirs)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(our_gradients, their_gradients):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_matching_of_two_objects_by_hand(head):
    """Query 3 is the left half and class 1, query 0 the right half and class 2, the others nothing."""
    left = np.zeros((16, 16), dtype=np.uint8)
    left[:, :8] = 1
    masks = torch.full((1, QUERIES, 16, 16), -9.0)
    masks[0, 3][torch.from_numpy(left) > 0] = 9.0
    masks[0, 0][torch.from_numpy(left) == 0] = 9.0
    classes = torch.zeros(1, 1, QUERIES, CLASSES + 1)
    classes[0, 0, 3, 1] = classes[0, 0, 0, 2] = 4.0
    gt = InstanceData(labels=torch.tensor([1, 2]), masks=torch.from_numpy(np.stack([left, 1 - left])))
    query_of_gt, matched = head._match(classes, [masks], [gt], [{}])
    assert query_of_gt.tolist() == [[3, 0]] and matched.all()


def test_class_loss_by_hand(head):
    """All logits equal: log 4 for every query, weighted 1 for the object and 0.1 for "no object", times 2."""
    samples = make_samples([1], num_classes=CLASSES)[1]
    outputs = [[torch.zeros(1, QUERIES, *shape)] for shape in [(CLASSES + 1, ), (16, 16)]]
    gt = head.preprocess_gt([samples[0].gt_instances], [None])
    losses = head.loss_by_feat(*outputs, gt, [{}])
    assert losses['loss_cls'] == pytest.approx(2 * np.log(4))
    assert losses['loss_mask'] == pytest.approx(5 * np.log(2))


def test_half_precision_outputs_give_full_precision_losses(head):
    samples = make_samples([2, 1], num_classes=CLASSES)[1]
    outputs = [[t.detach().bfloat16() for t in part] for part in random_outputs(2)]
    gt = head.preprocess_gt([s.gt_instances for s in samples], [None] * 2)
    losses = head.loss_by_feat(*outputs, gt, [s.metainfo for s in samples])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


def test_non_finite_logits_are_reported_with_the_images(head):
    samples = make_samples([1, 2], num_classes=CLASSES)[1]
    outputs = random_outputs(2)
    with torch.no_grad():
        outputs[1][0][1, 2] = float('nan')
    gt = head.preprocess_gt([s.gt_instances for s in samples], [None] * 2)
    with pytest.raises(NonFiniteError, match='not finite: matching cost on the images image_1.png;'):
        head.loss_by_feat(*outputs, gt, [s.metainfo for s in samples])


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
    """As many calls with as many numbers as a part with images, or the ranks would wait for each other."""
    student = build_model(tiny_student_config())
    images, samples = make_samples([2])
    outputs = student.forward_once(images, samples)
    shapes = []
    for indices in ([0], []):
        with mock.patch.object(cast_mask2former, 'reduce_mean', side_effect=lambda x: x) as reduce:
            student.loss_on(outputs, samples, indices)
        shapes.append([(call.args[0].shape, call.args[0].dtype) for call in reduce.call_args_list])
    assert shapes[0] == shapes[1]
