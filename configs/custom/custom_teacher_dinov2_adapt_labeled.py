# Step 1a with a teacher that has DINOv2's features of the image beside its own, which the student has not.
_base_ = './custom_teacher_adapt_labeled.py'
dinov2 = dict(type='TimmEncoder', name='vit_small_patch14_dinov2')
model = dict(
    detector=dict(
        backbone=dict(
            _delete_=True, type='FoundationGuidedEncoder', encoder=_base_.model.detector.backbone, foundation=dinov2)))
