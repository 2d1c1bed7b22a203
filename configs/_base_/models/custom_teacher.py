# The toy's teacher network; configs/cast_custom.py sets classes and queries.
_base_ = './toy_teacher.py'

model = dict(
    detector=dict(
        panoptic_head=dict(num_things_classes=1, num_queries=100, loss_cls=dict(class_weight=[1.0, 0.1])),
        panoptic_fusion_head=dict(num_things_classes=1),
        test_cfg=dict(max_per_image=100)))
