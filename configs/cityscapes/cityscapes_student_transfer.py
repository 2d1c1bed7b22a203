# Step 2: distill the frozen teacher's pseudo-labels into the student, l_semi and l_pxl on.
_base_ = [
    '../_base_/models/cast_student.py', '../_base_/datasets/cityscapes_semi.py', '../_base_/schedules/student.py',
    '../_base_/default_runtime.py'
]

model = dict(
    detector=dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='weights/dinov2_vits14_pretrain.pth'))),
    pixel_contrast=dict(type='PixelContrast', in_channels=384, pool=2, loss_weight=0.1),
    semi_train_cfg=dict(semi_weight=1.0))
default_hooks = dict(checkpoint=dict(interval=5000))
