# The toy's small student, with queries for images of up to 150 nuclei; a CPU trains it in minutes. With a GPU
# and the public DINOv2 weights, inherit from cast_student.py instead.
_base_ = './toy_student.py'

model = dict(
    detector=dict(
        panoptic_head=dict(
            num_things_classes=1,
            num_queries=160,
            loss_cls=dict(class_weight=[1.0, 0.1])),
        panoptic_fusion_head=dict(num_things_classes=1),
        train_cfg=dict(num_points=1024),
        test_cfg=dict(max_per_image=160)))
