"""SAM3's adaptation: what it learns from, and that it fits into CASTDetector and DDP."""

import copy
import pickle
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from mmengine.structures import InstanceData, PixelData
from tiny_sam3 import sam3, sam3_config
from torchvision.ops import sigmoid_focal_loss

from mmcast.models.losses.text_prompted import match_queries
from mmcast.models.outputs import CASTNetwork
from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model

SIZE = (64, 96)
QUERY_LOSSES = ('cls', 'presence', 'bbox', 'iou')
KEYS = {f'{layer}loss_{name}' for layer in ('d0.', '') for name in QUERY_LOSSES}
KEYS |= {'loss_mask', 'loss_dice'}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('sam3')


@pytest.fixture(scope='module')
def model(folder):
    return without_dropout(sam3(folder).train())


def without_dropout(model):
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model


def cast(folder, semi_weight=0.0, pixel=True, **options):
    contrast = dict(
        in_channels=32,
        embed_dims=8,
        pool=1,
        loss=dict(type='PixelContrastiveLoss', num_negatives=4),
    )
    return build_model(
        dict(
            type='CASTDetector',
            detector=sam3_config(folder, **options),
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
    losses, gradients = losses_and_gradients(model, *make_samples(objects, size=SIZE))
    assert set(gradients) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values())
    zero = {name for name, loss in losses.items() if loss == 0}
    assert set(losses) == KEYS
    assert zero == (set() if any(objects) else {n for n in KEYS if 'presence' not in n})


@pytest.mark.parametrize('frozen', [(), ('vision_encoder',), ('text_encoder', 'vision_encoder')])
@pytest.mark.parametrize('token', [False, True])
def test_what_is_frozen_has_no_gradient_and_the_rest_has(folder, frozen, token):
    """What no text prompt trains is frozen in any case."""
    model = sam3(folder, frozen=frozen, geometry_token=token).train()
    _, gradients = losses_and_gradients(model, *make_samples([2, 0], size=SIZE))
    assert set(gradients) == {name for name, p in model.named_parameters() if p.requires_grad}
    never = (
        'network.geometry_encoder.',
        'network.text_encoder.text_projection.',
        'network.vision_encoder.neck.fpn_layers.3.',
        'network.mask_decoder.pixel_decoder.norms.2.',
        'network.mask_decoder.semantic_projection.',
        *(f'network.{name}.' for name in frozen),
    )
    assert not any(name.startswith(never) for name in gradients)
    assert not model.network.geometry_encoder.training
    for part in ('vision_encoder.backbone', 'text_encoder.text_model', 'detr_decoder'):
        learns = not part.startswith(tuple(frozen))
        assert model.network.get_submodule(part).training == learns
        assert learns == any(name.startswith(f'network.{part}') for name in gradients), part


def test_keys_are_the_same_whatever_the_batch_holds(model):
    for objects in ([2, 1], [0, 0]):
        images, samples = make_samples(objects, size=SIZE)
        outputs = model.forward_once(images, samples)
        for indices in ([0, 1], [1], []):
            losses = model.loss_on(outputs, samples, indices)
            assert set(losses) == KEYS
            assert all(loss.requires_grad for loss in losses.values())
            assert indices or all(loss == 0 for loss in losses.values())


def test_losses_of_a_part_are_those_of_that_part(model):
    images, samples = make_samples([2, 3], size=SIZE)
    part = model.loss_on(model.forward_once(images, samples), samples, [1])
    alone = model.loss(images[1:], samples[1:])
    for name in alone:
        torch.testing.assert_close(part[name], alone[name], rtol=1e-4, atol=1e-5)


def test_losses_are_those_of_targets_that_are_put_together_by_hand(model):
    """Image 0 has objects of classes 0 and 2, image 1 none: six pairs, of which two are not empty;
    masks by a loop over the matched objects.
    """
    images, samples = make_samples([3, 0], size=SIZE)
    gt = samples[0].gt_instances
    gt.labels = torch.tensor([2, 0, 2])
    outputs = model.forward_once(images, samples)
    losses = model.loss_on(outputs, samples, [0, 1])
    pairs = list(zip(outputs.images.tolist(), outputs.labels.tolist()))
    assert sorted(pairs) == [(i, label) for i in range(2) for label in range(3)]
    found, presence = outputs.found, 0.0
    total = dict(mask=0.0, dice=0.0, bbox=0.0)
    for pair, (image, label) in enumerate(pairs):
        objects = [j for j in range(3) if image == 0 and gt.labels[j] == label]
        logit = found.presence[-1, pair]
        presence = presence - 0.5 * torch.nn.functional.logsigmoid(logit if objects else -logit)
        wanted = gt.bboxes[objects] / torch.tensor([96.0, 64.0] * 2)
        wanted = torch.cat([(wanted[:, :2] + wanted[:, 2:]) / 2, wanted[:, 2:] - wanted[:, :2]], 1)
        matches = match_queries(found.logits[:, [pair]], found.boxes[:, [pair]], [wanted])
        last = matches.of_layer(len(found.logits) - 1)
        for query, target in zip(last.queries.tolist(), last.targets.tolist()):
            total['bbox'] += (found.boxes[-1, pair, query] - wanted[target]).abs().sum()
            logits = model.network.masks(found, outputs.encoded, pair, 0, torch.tensor([query]))
            logits = torch.nn.functional.interpolate(logits[None], (56, 56), mode='bilinear')[0, 0]
            mask = torch.from_numpy(gt.masks.masks[objects[target]])
            # torchvision's nearest neighbour takes the pixel at the lower edge.
            rows, columns = torch.arange(56) * 64 // 56, torch.arange(56) * 96 // 56
            mask = mask[rows][:, columns].float()
            total['mask'] += sigmoid_focal_loss(logits, mask, alpha=0.25, gamma=2.0).mean()
            p = logits.sigmoid()
            total['dice'] += 1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)
    torch.testing.assert_close(losses['loss_presence'], 20 * presence / 6)
    torch.testing.assert_close(losses['loss_bbox'], 5 * total['bbox'] / 3)
    torch.testing.assert_close(losses['loss_mask'], 200 * total['mask'] / 3)
    torch.testing.assert_close(losses['loss_dice'], 10 * total['dice'] / 3)


def test_the_teachers_confidence_weights_the_focal_mask_loss(model):
    images, samples = make_samples([2], size=SIZE)
    samples[0].set_metainfo(dict(source='pseudo'))
    plain = losses_and_gradients(model, images, samples)[0]
    third = torch.full((1, *SIZE), 5, dtype=torch.uint8)
    samples[0].gt_sem_seg = PixelData(sem_seg=third)
    weighted = losses_and_gradients(model, images, samples)[0]
    for name, loss in plain.items():
        torch.testing.assert_close(weighted[name], loss / 3 if name == 'loss_mask' else loss)


def test_a_perfect_network_has_hardly_any_loss(model):
    """The last layer's boxes, scores and masks are the truth."""
    images, samples = make_samples([1], size=SIZE)
    gt = samples[0].gt_instances
    gt.labels = torch.tensor([1])
    outputs = model.forward_once(images, samples)
    box = gt.bboxes[0] / torch.tensor([96.0, 64.0] * 2)
    box = torch.cat([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])
    found = outputs.found
    found.boxes = found.boxes.detach().clone()
    found.logits = torch.full_like(found.logits, -12)
    found.presence = torch.full_like(found.presence, -10)
    pair = outputs.labels.tolist().index(1)
    found.presence[:, pair], found.logits[:, pair, 4], found.boxes[:, pair, 4] = 10, 12, box
    mask = torch.from_numpy(gt.masks.masks).float()
    logits = torch.nn.functional.interpolate(mask[None], (56, 56))[0] * 40 - 20
    with mock.patch.object(type(model.network), 'masks', return_value=logits) as masks:
        losses = model.loss_on(outputs, samples, [0])
    assert masks.call_args.args[-1].tolist() == [4]
    assert all(loss.abs() < 1e-3 for loss in losses.values()), losses


# Classes that an image is asked for


def test_images_are_asked_for_classes_that_they_have_and_others(folder):
    names = [a + b for a in 'abcd' for b in 'klmn']
    model = sam3(folder, classes=names, texts_per_image=5, absent_texts=2).train()
    images, samples = make_samples([2, 0, 9], size=SIZE, num_classes=16)
    samples[2].gt_instances.labels = torch.arange(9)
    asked = set()
    for _ in range(4):
        outputs = model.forward_once(images, samples)
        assert outputs.images.tolist() == [0] * 5 + [1] * 5 + [2] * 5
        of_image = [set(part.tolist()) for part in outputs.labels.split(5)]
        assert all(len(part) == 5 for part in of_image)
        assert of_image[0] >= set(samples[0].gt_instances.labels.tolist())
        assert len(of_image[2] - set(range(9))) == 2
        asked |= of_image[1]
        losses = model.loss_on(outputs, samples, [0, 1, 2])
        assert all(loss.isfinite() for loss in losses.values())
    assert len(asked) > 8


def test_a_class_that_a_group_alone_shows_is_not_taught_to_be_absent(folder):
    model = sam3(folder).train()
    images, samples = make_samples([0, 0], size=SIZE)
    samples[0].ignored_instances = InstanceData(labels=torch.tensor([1]))
    outputs = model.forward_once(images, samples)
    of_image = [outputs.labels[outputs.images == image].sort()[0].tolist() for image in (0, 1)]
    assert of_image == [[0, 2], [0, 1, 2]]


def test_an_image_whose_only_class_a_group_shows_teaches_nothing(folder):
    model = sam3(folder, classes=('cell',), prompts=None).train()
    images, samples = make_samples([0], size=SIZE, num_classes=1)
    assert model.loss(images, samples)['loss_presence'] > 0
    samples[0].ignored_instances = InstanceData(labels=torch.tensor([0]))
    losses = model.loss(images, samples)
    assert all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()


def test_a_class_is_asked_for_by_any_of_its_texts(folder):
    model = sam3(folder, prompts=dict(rider=['man', 'cyclist', 'biker'])).train()
    drawn = {tuple(model.texts.draw(torch.tensor([1, 2, 1])).tolist()) for _ in range(60)}
    assert {each[0] for each in drawn} == {1, 2, 3} == {each[2] for each in drawn}
    assert {each[1] for each in drawn} == {4} and len(drawn) == 9


def test_no_more_masks_than_allowed(folder):
    model = sam3(folder, masks_per_image=3).train()
    images, samples = make_samples([6, 2], size=SIZE)
    network = type(model.network)
    with mock.patch.object(network, 'masks', autospec=True, side_effect=network.masks) as masks:
        model.loss(images, samples)
    counts = [0, 0]
    for call in masks.call_args_list:
        counts[call.args[4]] += len(call.args[5])
    assert counts == [3, 2]


# In CASTDetector


@pytest.mark.parametrize('semi', [0.0, 1.0])
def test_a_step_with_labeled_and_pseudo_labeled_images_and_the_pixel_loss(folder, semi):
    model = cast(folder, semi_weight=semi)
    assert isinstance(model.detector, CASTNetwork)
    sources = ['labeled', 'pseudo'] if semi else None
    losses, _ = losses_and_gradients(model, *make_samples([2, 1], sources, size=SIZE))
    prefixes = ('sup_', 'unsup_') if semi else ('sup_',)
    assert set(losses) == {prefix + key for prefix in prefixes for key in KEYS} | {'loss_pxl'}
    assert losses['loss_pxl'] > 0


def test_the_pixel_loss_teaches_the_image_encoder_and_no_query(folder):
    model = cast(folder)
    model.zero_grad()
    model.loss(*make_samples([2, 1], size=SIZE))['loss_pxl'].backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any('vision_encoder.backbone' in name for name in touched)
    assert any('projector' in name for name in touched)
    assert not any('detr' in name or 'mask_decoder' in name for name in touched)


def test_pixel_outputs_are_those_of_the_best_queries(model):
    images, samples = make_samples([1, 1], size=SIZE)
    outputs = model.forward_once(images, samples)
    with mock.patch.object(model, 'num_pixel_queries', 7):
        masks, classes = outputs.mask_logits[-1], outputs.class_logits[-1]
    assert masks.shape == (2, 7, 16, 16) and classes.shape == (2, 7, 4)
    assert not masks.requires_grad and not classes.requires_grad
    assert outputs.features[-1].shape == (2, 32, 4, 4) and outputs.features[-1].requires_grad
    torch.testing.assert_close(model.extract_feat(images)[-1], outputs.features[-1])
    for image in range(2):
        scores = outputs.found.scores[outputs.images == image].flatten()
        best = scores.sort(descending=True).values[:7]
        kept = classes[image].exp()
        torch.testing.assert_close(kept[:, :3].amax(1).sort(descending=True).values, best)
        assert ((kept[:, :3] > 1e-5).sum(1) == 1).all()
        torch.testing.assert_close(kept[:, 3], 1 - kept[:, :3].amax(1), atol=1e-5, rtol=1e-5)


def test_activation_checkpointing_changes_no_loss_and_no_gradient(folder):
    images, samples = make_samples([2, 1], size=SIZE)
    (plain, expected), (losses, gradients) = (
        losses_and_gradients(
            without_dropout(sam3(folder, activation_checkpointing=on).train()), images, samples
        )
        for on in (False, True)
    )
    assert set(gradients) == set(expected)
    for name, loss in plain.items():
        torch.testing.assert_close(losses[name], loss)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5)


def test_copies_and_pickles_learn_from_their_own_weights(folder):
    """As EMA makes them; with checkpointing, which must not hold on to the original."""
    model = cast(folder, activation_checkpointing=True)
    images, samples = make_samples([2], size=SIZE)
    expected = losses_and_gradients(model, images, samples)
    copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for parameter in model.parameters():
        parameter.detach().zero_()
    for other in copies:
        losses, gradients = losses_and_gradients(other, images, samples)
        assert all(torch.equal(losses[name], loss) for name, loss in expected[0].items())
        assert all(torch.equal(gradients[name], part) for name, part in expected[1].items())


@pytest.mark.parametrize('token', [False, True])
def test_half_precision_gives_finite_losses_in_full_precision(folder, token):
    model = cast(folder, semi_weight=1.0, geometry_token=token)
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.loss(*make_samples([2, 1], ['labeled', 'pseudo'], size=SIZE))
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_few_steps_reduce_the_loss_and_find_the_object(folder):
    """Two objects of two classes; afterwards the best of each is on its place."""
    model = without_dropout(sam3(folder).train())
    images, samples = make_samples([2], size=SIZE)
    masks = torch.zeros(2, *SIZE, dtype=torch.uint8).numpy()
    masks[0, 8:40, 8:40], masks[1, 20:60, 50:90] = 1, 1
    gt = samples[0].gt_instances
    gt.masks, gt.labels = type(gt.masks)(masks, *SIZE), torch.tensor([0, 2])
    gt.bboxes = gt.masks.get_bboxes('hbox').tensor
    for mask, colour in zip(masks, (-1.5, 1.5)):
        images[0][:, torch.from_numpy(mask).bool()] = colour
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=2e-3)
    totals = []
    for _ in range(45):
        optimizer.zero_grad()
        total = sum(model.loss(images, samples).values())
        total.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        totals.append(total.item())
    assert sum(totals[-3:]) < 0.4 * sum(totals[:3])
    with torch.no_grad():
        pred = model.eval().predict(images, samples)[0].pred_instances
    for label, mask in ((0, masks[0]), (2, masks[1])):
        best = pred[pred.labels == label][0]
        mask = torch.from_numpy(mask).bool()
        iou = (best.masks[0] & mask).sum() / (best.masks[0] | mask).sum()
        assert iou > 0.5
        # The class that is not there is less likely to be.
        assert not (pred[pred.labels == 1].class_scores >= best.class_scores).any()


# Two processes


CASES = {'four here, one there': [4, 1], 'none here, two there': [0, 2]}


def worker(rank, folder):
    """Rank 0 has the labeled image, rank 1 the pseudo-labeled one; one step of every case."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    results = {}
    for name, objects in CASES.items():
        images, samples = make_samples(objects, ['labeled', 'pseudo'], size=SIZE)
        model = without_dropout(cast(Path(folder, str(rank)), semi_weight=1.0, pixel=False))
        wrapped = MMDistributedDataParallel(model)  # has to live until the backward pass
        losses = wrapped(images[rank : rank + 1], samples[rank : rank + 1], mode='loss')
        sum(losses.values()).backward()
        gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
        results[name] = dict(
            gradients=gradients, losses={key: loss.item() for key, loss in losses.items()}
        )
    torch.save(results, f'{folder}/rank{rank}.pth')
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def distributed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('gloo')
    mp.spawn(worker, (str(folder),), nprocs=2)
    return [torch.load(folder / f'rank{rank}.pth') for rank in range(2)]


@pytest.mark.parametrize('case', CASES)
def test_two_processes_with_other_numbers_of_objects_have_the_gradient_of_one(
    distributed, folder, case
):
    ours, theirs = (rank[case] for rank in distributed)
    assert set(ours['losses']) == set(theirs['losses'])
    assert ours['losses']['unsup_loss_mask'] == theirs['losses']['sup_loss_mask'] == 0
    model = without_dropout(cast(folder, semi_weight=1.0, pixel=False))
    samples = make_samples(CASES[case], ['labeled', 'pseudo'], size=SIZE)
    _, expected = losses_and_gradients(model, *samples)
    assert set(ours['gradients']) == set(expected)
    for name, gradient in expected.items():
        assert torch.equal(ours['gradients'][name], theirs['gradients'][name])
        torch.testing.assert_close(ours['gradients'][name], gradient, rtol=1e-4, atol=1e-5)
