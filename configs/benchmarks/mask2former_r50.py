# Mask2Former with ResNet-50 and deformable attention for eight classes, at random: what `mmcast benchmark`
# compares with the student. Heads and queries are those of the student.
_base_ = '../_base_/models/mask2former_swin_l.py'
detector = _base_.model.detector
resnet = dict(type='ResNet', depth=50, out_indices=(0, 1, 2, 3), norm_eval=True, style='pytorch')
model = dict(
    _delete_=True,
    type='Mask2Former',
    data_preprocessor=detector.data_preprocessor,
    backbone=resnet,
    panoptic_head=dict(
        detector.panoptic_head, type='Mask2FormerHead', in_channels=[256, 512, 1024, 2048], num_queries=100),
    panoptic_fusion_head=detector.panoptic_fusion_head,
    test_cfg=detector.test_cfg)
