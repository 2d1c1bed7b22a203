# What both networks of DSB2018 change in the toy's: one class, and prediction tile by tile. An image has up
# to 150 nuclei, a tile as many as there are queries.
tiled = dict(
    panoptic_head=dict(
        num_things_classes=1,
        num_queries=48,
        # Joining tiles drops duplicate detections, so "no object" (usually 0.1) need not: docs/results.md.
        loss_cls=dict(class_weight=[1.0, 0.01])),
    panoptic_fusion_head=dict(num_things_classes=1),
    train_cfg=dict(num_points=1024),
    test_cfg=dict(max_per_image=48, windows=dict(size=320, overlap=128)))
