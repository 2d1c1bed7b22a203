# What both networks of custom data change; configs/cast_custom.py sets classes and queries.
custom = dict(
    panoptic_head=dict(num_things_classes=1, num_queries=100, loss_cls=dict(class_weight=[1.0, 0.1])),
    panoptic_fusion_head=dict(num_things_classes=1),
    train_cfg=dict(num_points=3072),  # a crop of 256x256 has 4,096 pixels at stride 4
    test_cfg=dict(max_per_image=100))
