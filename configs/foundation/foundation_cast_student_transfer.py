# Step 2 on own images: distill the frozen teacher's pseudo-labels into the student, l_semi and l_pxl on.
_base_ = ['../_base_/models/cast_student.py', '../_base_/models/custom_classes.py',
          '../_base_/datasets/custom.py', '../_base_/schedules/student.py']
dinov2 = dict(type='Pretrained', checkpoint='weights/dinov2_vits14_pretrain.pth')
model = dict(
    detector=dict(_base_.custom, backbone=dict(init_cfg=dinov2)), pixel_contrast=_base_.pixel_contrast,
    semi_train_cfg=dict(semi_weight=1.0))
train_dataloader = dict(_base_.semi_dataloader, _delete_=True, num_workers=4)
