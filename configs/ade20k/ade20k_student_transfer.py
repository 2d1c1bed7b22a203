# Step 2: distill the frozen teacher's pseudo-labels into the student, l_semi and l_pxl on.
_base_ = [
    '../_base_/models/cast_student.py', '../_base_/datasets/ade20k_semi.py', '../_base_/schedules/student.py',
    '../_base_/default_runtime.py'
]

num_classes = 100
model = dict(
    detector=dict(
        backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='weights/dinov2_vits14_pretrain.pth')),
        panoptic_head=dict(
            num_things_classes=num_classes,
            loss_cls=dict(class_weight=[1.0] * num_classes + [0.1])),
        panoptic_fusion_head=dict(num_things_classes=num_classes)),
    pixel_contrast=dict(type='PixelContrast', in_channels=384, pool=2, loss_weight=0.1),
    semi_train_cfg=dict(semi_weight=1.0))
optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=0.05))
train_cfg = dict(max_iters=160000)
default_hooks = dict(checkpoint=dict(interval=5000))
