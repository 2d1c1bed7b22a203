# What every COCO-style instance data set here shares; the files that inherit it say where the data are and how an
# image is transformed.
backend_args = None
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction', 'source')

labeled_dataset = dict(type='CocoDataset', filter_cfg=dict(filter_empty_gt=False), backend_args=backend_args)

train_dataloader = dict(
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=labeled_dataset)

val_dataloader = dict(
    batch_size=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        ann_file='annotations/instances_val.json',
        test_mode=True,
        backend_args=backend_args))
test_dataloader = val_dataloader

val_evaluator = dict(type='CocoMetric', metric='segm', format_only=False, backend_args=backend_args)
test_evaluator = val_evaluator
