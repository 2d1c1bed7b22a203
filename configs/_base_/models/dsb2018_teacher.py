# The toy's teacher network with queries for images of up to 150 nuclei. No foundation model is at hand offline:
# it starts from the weights that the toy's teacher learned on street scenes.
_base_ = './toy_teacher.py'

model = dict(
    detector=dict(
        panoptic_head=dict(
            num_things_classes=1,
            num_queries=160,
            loss_cls=dict(class_weight=[1.0, 0.1])),
        panoptic_fusion_head=dict(num_things_classes=1),
        train_cfg=dict(num_points=1024),
        test_cfg=dict(max_per_image=160)))
