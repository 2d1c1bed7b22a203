# Step 3: refine the transferred student on the labels alone, l_semi = l_pxl = 0. A tenth of the learning rate
# and of the iterations; the paper does not say.
_base_ = [
    '../_base_/models/cast_student.py', '../_base_/datasets/ade20k.py', '../_base_/schedules/student.py',
    '../_base_/default_runtime.py'
]

num_classes = 100
model = dict(
    detector=dict(
        backbone=dict(init_cfg=None),
        panoptic_head=dict(
            num_things_classes=num_classes,
            loss_cls=dict(class_weight=[1.0] * num_classes + [0.1])),
        panoptic_fusion_head=dict(num_things_classes=num_classes)),
    pixel_contrast=None)
load_from = 'work_dirs/cast_ade20k/transfer.pth'  # the pipeline puts its own here
optim_wrapper = dict(optimizer=dict(lr=1e-5, weight_decay=0.05))
train_cfg = dict(max_iters=16000, val_interval=16000)
default_hooks = dict(checkpoint=dict(interval=5000))
