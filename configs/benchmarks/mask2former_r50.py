# Mask2Former with ResNet-50 and deformable attention for eight classes, at random: what `mmcast benchmark`
# compares with the student. Heads and queries are those of the student.
_base_ = '../_base_/models/mask2former_r50_coco.py'
detector = _base_.model.detector
model = dict(
    detector,
    _delete_=True,
    type='Mask2Former',
    panoptic_head=dict(detector.panoptic_head, type='Mask2FormerHead'),
    train_cfg=None)
