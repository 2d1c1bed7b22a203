# What both networks of custom data change in the toy's; configs/cast_custom.py sets classes and queries.
custom = dict(
    panoptic_head=dict(num_things_classes=1, num_queries=100, loss_cls=dict(class_weight=[1.0, 0.1])),
    panoptic_fusion_head=dict(num_things_classes=1),
    test_cfg=dict(max_per_image=100))
