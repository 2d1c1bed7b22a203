# The toy's teacher network with queries for nuclei. No foundation model is at hand offline: its encoder
# starts from the toy's weights, the rest from scratch.
_base_ = './toy_teacher.py'

model = dict(
    detector=dict(
        backbone=dict(
            init_cfg=dict(
                type='Pretrained', checkpoint='configs/toy/weights/toy_teacher.pth', prefix='backbone.')),
        panoptic_head=dict(
            num_things_classes=1,
            num_queries=160,
            loss_cls=dict(class_weight=[1.0, 0.1])),
        panoptic_fusion_head=dict(num_things_classes=1),
        train_cfg=dict(num_points=2048),
        test_cfg=dict(max_per_image=160)))
