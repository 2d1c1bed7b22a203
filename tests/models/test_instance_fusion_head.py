"""The fusion head against mmdet's, and its factors against slow arithmetic."""
import pytest
import torch
from mmcast.models.instance_fusion_head import InstanceFusionHead
from mmdet.models.seg_heads import MaskFormerFusionHead
from mmengine.config import ConfigDict


def build(cls, max_per_image):
    return cls(num_things_classes=3, num_stuff_classes=0, loss_panoptic=None,
               test_cfg=ConfigDict(max_per_image=max_per_image))


@pytest.mark.parametrize('max_per_image', [1, 5, 15])
def test_instances_are_mmdets(max_per_image):
    generator = torch.Generator().manual_seed(max_per_image)
    logits = torch.randn(5, 4, generator=generator), 4 * torch.randn(5, 9, 13, generator=generator)
    ours, stock = (build(cls, max_per_image).instance_postprocess(*logits)
                   for cls in (InstanceFusionHead, MaskFormerFusionHead))
    assert len(ours) == max_per_image
    for field in ('labels', 'masks', 'bboxes'):
        assert torch.equal(ours[field], stock[field])
    torch.testing.assert_close(ours.scores, stock.scores)


def test_factors_of_the_score():
    classes = torch.tensor([[0.0, 2.0, -1.0, 0.5], [1.0, 1.0, 1.0, 1.0]])
    masks = torch.tensor([[[3.0, -1.0, 0.2]], [[-1.0, -2.0, -0.1]]])  # the second is empty
    instances = build(InstanceFusionHead, 6).instance_postprocess(classes, masks)
    best = instances[int(instances.class_scores.argmax())]
    total = sum(value.exp() for value in classes[0])
    assert best.labels.item() == 1
    assert best.class_scores.item() == pytest.approx((classes[0, 1].exp() / total).item())
    quality = (1 / (1 + torch.tensor(-3.0).exp()) + 1 / (1 + torch.tensor(-0.2).exp())) / 2
    assert best.mask_quality.item() == pytest.approx(quality.item(), rel=1e-5)
    torch.testing.assert_close(instances.scores, instances.class_scores * instances.mask_quality)
    assert instances.mask_quality[~instances.masks.any(2).any(1)].tolist() == [0, 0, 0]
