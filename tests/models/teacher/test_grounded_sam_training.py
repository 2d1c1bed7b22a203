"""The teacher's adaptation: which half learns from what, and that it fits into CASTDetector and
DDP.
"""

import copy
import pickle
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from mmengine.structures import PixelData
from tiny_teacher import CLASSES, teacher, teacher_config

from mmcast.models.teacher.sam2 import jitter_boxes
from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model

SIZE = (64, 96)
MASK_LOSSES = {'loss_mask', 'loss_dice', 'loss_mask_quality'}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return teacher(tmp_path_factory.mktemp('teacher')).train()


def cast(folder, semi_weight=0.0, pixel=True, **options):
    contrast = dict(
        in_channels=256,
        embed_dims=8,
        pool=1,
        loss=dict(type='PixelContrastiveLoss', num_negatives=4),
    )
    if 'sam2' in options.get('frozen', ()):
        contrast['in_channels'] = 64  # Swin's coarsest map
    return build_model(
        dict(
            type='CASTDetector',
            detector=teacher_config(folder, **options),
            pixel_contrast=contrast if pixel else None,
            semi_train_cfg=dict(semi_weight=semi_weight),
        )
    ).train()


def losses_and_gradients(model, images, samples, seed=3):
    model.zero_grad()
    torch.manual_seed(seed)
    losses = model.loss(images, samples)
    sum(losses.values()).backward()
    return losses, {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize('objects', [[2, 1], [0, 0], [0, 3]], ids=str)
def test_every_parameter_that_learns_has_a_gradient_and_no_other_has(model, objects):
    """With objects and without, or DDP would wait."""
    images, samples = make_samples(objects, size=SIZE)
    losses, gradients = losses_and_gradients(model, images, samples)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(gradients) == learning
    assert not any('language_model' in name for name in learning)
    assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values())
    zero = {name for name, loss in losses.items() if loss == 0}
    assert MASK_LOSSES - zero == (MASK_LOSSES if any(objects) else set())


@pytest.mark.parametrize('objects', [[2, 1], [0, 0]], ids=str)
def test_what_reads_mask_prompts_learns_where_they_are_given(tmp_path, objects):
    model = teacher(tmp_path, sam2=dict(teacher_config(tmp_path).sam2, reprompts=1)).train()
    images, samples = make_samples(objects, size=SIZE)
    losses, gradients = losses_and_gradients(model, images, samples)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(gradients) == learning and any('mask_embed.conv' in name for name in learning)
    assert all(loss.isfinite() for loss in losses.values())


def test_the_teachers_confidence_weights_its_own_mask_loss(model):
    images, samples = make_samples([2], size=SIZE)
    samples[0].set_metainfo(dict(source='pseudo'))
    plain = losses_and_gradients(model, images, samples)[0]
    samples[0].gt_sem_seg = PixelData(
        sem_seg=torch.full((1, *SIZE), 5, dtype=torch.uint8)
    )  # a third
    weighted = losses_and_gradients(model, images, samples)[0]
    for name, loss in plain.items():
        torch.testing.assert_close(weighted[name], loss / 3 if name == 'loss_mask' else loss)


def test_keys_are_the_same_whatever_the_batch_holds(model):
    keys = set()
    for objects in ([2, 1], [0, 0]):
        images, samples = make_samples(objects, size=SIZE)
        outputs = model.forward_once(images, samples)
        for indices in ([0, 1], [1], []):
            losses = model.loss_on(outputs, samples, indices)
            keys.add(tuple(sorted(losses)))
            assert indices or all(loss == 0 and loss.requires_grad for loss in losses.values())
    assert len(keys) == 1 and set(*keys) > MASK_LOSSES
    assert {'loss_cls', 'loss_bbox', 'loss_iou', 'enc_loss_cls', 'dn_loss_cls'} < set(*keys)


def test_losses_of_a_part_are_those_of_that_part(model):
    """Of image 1 beside image 0 and alone; mmdet's denoising draws differently and is left out."""
    images, samples = make_samples([2, 3], size=SIZE)
    (fusion,) = model.grounding_dino.encoder.fusion_layers
    with (
        mock.patch.object(model.sam2, 'box_jitter', 0.0),
        mock.patch.object(fusion.attn, 'dropout', 0.0),
    ):
        part = model.loss_on(model.forward_once(images, samples), samples, [1])
        alone = model.loss(images[1:], samples[1:])
    for name in alone:
        if 'dn_' not in name:
            torch.testing.assert_close(part[name], alone[name], rtol=1e-3, atol=1e-4)


def test_an_empty_part_takes_its_share_in_the_reductions_over_ranks(model):
    from mmdet.models.dense_heads import detr_head, grounding_dino_head

    from mmcast.models.teacher import sam2

    images, samples = make_samples([2], size=SIZE)
    outputs = model.forward_once(images, samples)
    calls = []
    for indices in ([0], []):
        calls.append([])

        def count(tensor):
            calls[-1].append(tuple(tensor.shape))
            return tensor

        with (
            mock.patch.object(grounding_dino_head, 'reduce_mean', count),
            mock.patch.object(detr_head, 'reduce_mean', count),
            mock.patch.object(sam2, 'reduce_mean', count),
        ):
            model.loss_on(outputs, samples, indices)
    assert calls[0] == calls[1] and len(calls[0]) > 5


@pytest.mark.parametrize('frozen, half', [('sam2', 'grounding_dino'), ('grounding_dino', 'sam2')])
def test_a_frozen_half_neither_learns_nor_costs_losses(tmp_path, frozen, half):
    model = cast(tmp_path, frozen=[frozen])
    losses, gradients = losses_and_gradients(model, *make_samples([2, 1], size=SIZE))
    assert {name.split('.')[1] for name in gradients} == {half, 'projector'}
    assert ({name.removeprefix('sup_') for name in losses} >= MASK_LOSSES) == (half == 'sam2')
    assert ('sup_loss_bbox' in losses) == (half == 'grounding_dino')
    assert losses['loss_pxl'] > 0
    part = getattr(model.detector, frozen)
    assert (
        not any(module.training for module in part.modules())
        and getattr(model.detector, half).training
    )


@pytest.mark.parametrize('semi', [0.0, 1.0])
def test_steps_1a_and_1b_are_configs_of_cast_detector(tmp_path, semi):
    model = cast(tmp_path, semi_weight=semi)
    sources = ['labeled', 'pseudo'] if semi else None
    losses, _ = losses_and_gradients(model, *make_samples([2, 1], sources, size=SIZE))
    assert {name.split('_')[0] for name in losses} == {'sup', 'loss'} | (
        {'unsup'} if semi else set()
    )


def test_the_pixel_loss_teaches_sam2s_encoder_and_neither_prompts_nor_queries(tmp_path):
    model = cast(tmp_path)
    model.zero_grad()
    model.loss(*make_samples([2, 1], size=SIZE))['loss_pxl'].backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any('vision_encoder' in name for name in touched) and any(
        'projector' in name for name in touched
    )
    assert not any(
        'mask_decoder.transformer' in name or 'grounding_dino' in name for name in touched
    )


def test_pixel_outputs_are_on_the_batchs_canvas(model):
    """A query on the right half of an image that fills the left half of the canvas."""
    images, samples = make_samples([1, 1], size=SIZE)
    samples[0].set_metainfo(dict(img_shape=(64, 48)))
    outputs = model.forward_once(images, samples)
    boxes = torch.tensor([[0.75, 0.5, 0.5, 1.0]]).expand(2, 60, 4)
    number = outputs.boxes.head_inputs['hidden_states'].shape[2]
    tokens = torch.zeros(2, number, 48)
    with mock.patch.object(
        model.grounding_dino.bbox_head,
        'forward',
        return_value=(tokens[None], boxes[None, :, :1].expand(1, 2, number, 4)),
    ):
        corners = model.grounding_dino.trained_queries(outputs.boxes)[1]
    assert corners[0, 0].tolist() == pytest.approx([0.25, 0, 0.5, 1])
    assert corners[1, 0].tolist() == pytest.approx([0.5, 0, 1, 1])

    masks, classes = outputs.mask_logits[-1], outputs.class_logits[-1]
    assert masks.shape[:2] == classes.shape[:2] == (2, 20) and classes.shape[2] == len(CLASSES) + 1
    assert not masks.requires_grad and not classes.requires_grad
    features = outputs.features[-1]
    assert features.shape == (2, 256, 4, 4) and features.requires_grad


def test_class_logits_are_the_scores_and_the_chance_of_none(model):
    scores = torch.tensor([[[0.2, 0.6, 0.0]]])
    with mock.patch.object(
        model.grounding_dino, 'queries', return_value=(scores, torch.rand(1, 1, 4))
    ):
        logits = model._pixel_queries(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), None, None)[1]
    assert logits.softmax(2)[0, 0].tolist() == pytest.approx(
        [0.2 / 1.2, 0.6 / 1.2, 0, 0.4 / 1.2], abs=1e-5
    )


def test_weak_and_strong_view_share_the_scale_that_was_drawn(tmp_path):
    model = teacher(
        tmp_path, frozen=['sam2'], grounding_dino=dict(train_box_scales=[(96, 48), (128, 64)])
    ).train()
    images, samples = make_samples([1], size=SIZE)
    seen = set()
    for seed in range(6):
        torch.manual_seed(seed)
        weak = model.forward_once(images, samples).features
        strong = model.extract_feat(images)
        assert [part.shape for part in weak] == [part.shape for part in strong]
        seen.add(weak[0].shape[2:])
    assert len(seen) == 2


def test_objects_of_classes_that_do_not_fit_into_the_prompt_are_no_targets(tmp_path):
    """16 names of three tokens and 48 tokens: 15 fit. Those present in the batch are among them."""
    names = [a + b for a in 'abcd' for b in 'klmn']
    model = teacher(tmp_path, classes=names).train()
    assert model.grounding_dino.prompts.whole is None
    images, samples = make_samples([3], size=SIZE, num_classes=16)
    for seed in range(4):
        torch.manual_seed(seed)
        outputs = model.forward_once(images, samples)
        asked = outputs.boxes.prompt.classes
        gt = outputs.boxes.samples[0].gt_instances
        assert set(samples[0].gt_instances.labels.tolist()) <= set(asked) and len(asked) == 15
        assert [asked[i] for i in gt.labels] == samples[0].gt_instances.labels.tolist()
    everything = make_samples([1], size=SIZE)[1][0]
    everything.gt_instances = everything.gt_instances[[0] * 16]
    everything.gt_instances.labels = torch.arange(16)
    outputs = model.forward_once(images, [everything])
    assert len(outputs.boxes.samples[0].gt_instances) == 15


def test_activation_checkpointing_changes_no_loss_and_no_gradient(tmp_path):
    images, samples = make_samples([2, 1], size=SIZE)
    results = [
        losses_and_gradients(
            teacher(tmp_path, activation_checkpointing=on).train(), images, samples
        )
        for on in (False, True)
    ]
    for losses, gradients in results[1:]:
        for name, loss in results[0][0].items():
            torch.testing.assert_close(losses[name], loss)
        assert set(gradients) == set(results[0][1])
        for name, gradient in results[0][1].items():
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5)


def test_copies_and_pickles_learn_from_their_own_weights(tmp_path):
    """As EMA makes them; with checkpointing, which must not hold on to the original."""
    model = cast(tmp_path, activation_checkpointing=True)
    images, samples = make_samples([2], size=SIZE)
    pickled = pickle.dumps(model)  # once BERT has run, transformers 5 keeps local functions in it
    expected = losses_and_gradients(model, images, samples)
    copies = copy.deepcopy(model), pickle.loads(pickled)
    for parameter in model.parameters():
        parameter.detach().zero_()
    for other in copies:
        losses, gradients = losses_and_gradients(other, images, samples)
        assert all(torch.equal(losses[name], loss) for name, loss in expected[0].items())
        assert all(torch.equal(gradients[name], part) for name, part in expected[1].items())


def test_half_precision_gives_finite_losses_in_full_precision(tmp_path):
    model = cast(tmp_path, semi_weight=1.0)
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.loss(*make_samples([2, 1], ['labeled', 'pseudo'], size=SIZE))
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_few_steps_reduce_the_loss(tmp_path):
    model = cast(tmp_path)
    images, samples = make_samples([2], size=SIZE)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    totals = []
    for _ in range(6):
        optimizer.zero_grad()
        total = sum(model.loss(images, samples).values())
        total.backward()
        optimizer.step()
        totals.append(float(total))
    assert sum(totals[-2:]) < 0.9 * sum(totals[:2])


# Boxes that prompt SAM2


def test_jitter_moves_corners_by_shares_of_the_box_and_stays_in_the_image():
    torch.manual_seed(0)
    boxes = torch.tensor([[10.0, 10.0, 50.0, 30.0]]).repeat(4000, 1)
    moved = jitter_boxes(boxes, 0.1, torch.tensor([100.0, 100.0]), (64, 96)) - boxes
    assert (
        moved.std(0).tolist() == pytest.approx([4, 2, 4, 2], rel=0.05)
        and moved.mean(0).abs().max() < 0.3
    )
    moved = jitter_boxes(boxes, 10.0, torch.tensor([5.0, 3.0]), (64, 96)) - boxes
    assert moved.abs().amax(0).tolist() == pytest.approx([5, 3, 5, 3])
    moved = jitter_boxes(boxes, 10.0, torch.tensor([500.0, 500.0]), (64, 96))
    assert moved.amin() == 0 and moved.amax(0).tolist() == [96, 64, 96, 64]


def test_no_more_prompts_than_allowed(model):
    images, samples = make_samples([8], size=SIZE)
    with (
        mock.patch.object(model.sam2, 'num_prompts', 5),
        mock.patch.object(model.sam2, 'passes', wraps=model.sam2.passes) as passes,
    ):
        model.loss(images, samples)
    # Three at a time.
    assert [call.args[1].shape for call in passes.call_args_list] == [(3, 4), (2, 4)]


# Two processes


def worker(rank, folder):
    """Rank 0 has the labeled image, rank 1 the pseudo-labeled one; one step."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    from pathlib import Path

    images, samples = make_samples([2, 1], ['labeled', 'pseudo'], size=SIZE)
    model = cast(Path(folder, str(rank)), semi_weight=1.0)
    wrapped = MMDistributedDataParallel(model)  # has to live until the backward pass
    losses = wrapped(images[rank : rank + 1], samples[rank : rank + 1], mode='loss')
    sum(losses.values()).backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    torch.save(
        dict(
            parameters=model.state_dict(),
            losses={name: loss.item() for name, loss in losses.items()},
        ),
        f'{folder}/rank{rank}.pth',
    )
    dist.destroy_process_group()


def test_two_processes_with_different_kinds_of_images_take_one_step_together(tmp_path):
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    ours, theirs = (torch.load(tmp_path / f'rank{rank}.pth') for rank in range(2))
    assert set(ours['losses']) == set(theirs['losses'])
    assert ours['losses']['unsup_loss_mask'] == theirs['losses']['sup_loss_mask'] == 0
    for name, value in ours['parameters'].items():
        assert torch.equal(value, theirs['parameters'][name]), name
