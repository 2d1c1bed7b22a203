"""Networks on a GPU against themselves on the CPU: losses, gradients, predictions."""

import copy

import pytest
import torch
from devices import DEVICES, ON_GPU, SameDraws, comparable, without_dropout
from mmdet.structures.mask import BitmapMasks
from small_models import CONFIGS, batch, build

#: One of every kind of network, with the most terms of the objective that a config has for it.
KINDS = [
    'toy/toy_student_transfer.py',
    'toy/toy_teacher_adapt_self_training.py',
    'dsb2018/dsb2018_student_transfer.py',
    'cityscapes/cityscapes_student_transfer.py',
    'cityscapes/cityscapes_mask2former_adapt_self_training.py',
    'cityscapes/cityscapes_teacher_adapt_self_training.py',
    'cityscapes_single_gpu/cityscapes_single_gpu_teacher_boxes_self_training.py',
    'cityscapes_single_gpu/cityscapes_single_gpu_teacher_masks_self_training.py',
    'cityscapes/cityscapes_sam3_adapt_self_training.py',
    'foundation/foundation_cast_lite_transfer.py',
    'foundation/foundation_mask2former_r50_coco_transfer.py',
    'baselines/cityscapes_student_online_pseudo.py',
]
SIZE = (61, 75)


@pytest.fixture(params=KINDS, ids=lambda path: path.partition('/')[2].removesuffix('.py'))
def built(request, tmp_path):
    """A config and its model."""
    return build(CONFIGS / request.param, tmp_path)


def train_step(config, model, device, half=False):
    """Losses by name, and all gradients as one vector, on the CPU."""
    model = without_dropout(copy.deepcopy(model)).to(device).train()
    data = model.data_preprocessor(batch(config, SIZE), True)
    torch.manual_seed(1)
    with comparable():
        with SameDraws(), torch.autocast(device, torch.bfloat16, enabled=half):
            losses = model(**data, mode='loss')
            total, _ = model.parse_losses(losses)
        total.backward()
    gradients = [p.grad.flatten().cpu() for p in model.parameters() if p.requires_grad]
    return {name: float(loss) for name, loss in losses.items()}, torch.cat(gradients)


def predict(config, model, device, half=False):
    """Instances of an image, on the CPU."""
    model = copy.deepcopy(model).to(device).eval()
    with (
        torch.no_grad(),
        comparable(),
        torch.autocast(device, torch.bfloat16, enabled=half),
    ):
        return model.test_step(batch(config, SIZE, ['labeled']))[0].pred_instances.cpu()


def share_found(expected, found, score_thr=0.0):
    """Of the instances of one prediction, how many are in the other with IoU 0.9 and up."""
    expected = expected[(expected.scores > score_thr) & expected.masks.flatten(1).any(1)]
    ours, theirs = (each.masks.flatten(1).float() for each in (expected, found))
    both = ours @ theirs.T
    union = ours.sum(1)[:, None] + theirs.sum(1) - both
    same = (both >= 0.9 * union) & (expected.labels[:, None] == found.labels)
    same &= (expected.scores[:, None] - found.scores).abs() < 0.01
    return same.any(1).float().mean().item() if len(expected) else 1.0


@pytest.mark.parametrize('device', [ON_GPU])
def test_losses_and_gradients_are_those_of_the_cpu(built, device):
    expected, of_cpu = train_step(*built, 'cpu')
    found, of_gpu = train_step(*built, device)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert torch.cosine_similarity(of_cpu, of_gpu, dim=0) > 0.999


@pytest.mark.parametrize('device', [ON_GPU])
def test_predictions_are_those_of_the_cpu(built, device):
    expected, found = predict(*built, 'cpu'), predict(*built, device)
    assert len(expected) == len(found) > 0
    assert share_found(expected, found) > 0.9 and share_found(found, expected) > 0.9


@pytest.mark.parametrize('device', [ON_GPU])
def test_bfloat16_trains_with_about_the_losses_of_float32(built, device):
    """With gradients of float32 for every parameter that learns."""
    expected, _ = train_step(*built, 'cpu')
    found, gradients = train_step(*built, device, half=True)
    assert gradients.isfinite().all() and gradients.dtype == torch.float32
    assert sum(found.values()) == pytest.approx(sum(expected.values()), rel=0.2)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('kind', [KINDS[0], KINDS[5], KINDS[8]])
def test_an_online_teacher_predicts_in_float32_under_autocast(kind, device, tmp_path):
    """It labels within the student's step: scores that are compared, masks of sharp borders."""
    config, model = build(CONFIGS / kind, tmp_path)
    model = model.to(device).eval()
    data = model.data_preprocessor(batch(config, SIZE, ['labeled']), False)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
        sample = model(**data, mode='predict')[0]
    found = sample.pred_instances
    for name in ('scores', 'class_scores', 'mask_quality', 'bboxes'):
        assert found[name].dtype == torch.float32, name
    labels = model.online.choose(found, data['inputs'].shape[-2:])
    assert isinstance(labels.masks, BitmapMasks) and labels.labels.device == found.labels.device
