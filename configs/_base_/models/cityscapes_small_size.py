# What both networks of small Cityscapes change: images 160 pixels high show up to 31 objects of 80 pixels and
# more, and have 3,200 pixels at stride 4.
small = dict(
    panoptic_head=dict(num_queries=50),
    train_cfg=dict(num_points=3072),
    test_cfg=dict(max_per_image=50))
