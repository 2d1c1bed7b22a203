# Cityscapes: 1024x2048 street scenes, the eight instance classes;
# made by tools/dataset_converters/cityscapes.py.
data_root = 'data/cityscapes/'
scale = (2048, 1024)  # width and height
crop_size = (1024, 512)  # width and height as well
classes = ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')
metainfo = dict(classes=classes)
backend_args = None

meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction',
             'source')
# Flip and colour come after the crop, where there are fewer pixels.
train_pipeline = [
    dict(type='LoadImage', backend_args=backend_args),
    dict(type='LoadCompressedAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, allow_negative_crop=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2), by_mask=True, keep_empty=False),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]
test_pipeline = [
    dict(type='LoadImage', backend_args=backend_args),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadCompressedAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]

labeled_dataset = dict(
    type='CocoDataset',
    metainfo=metainfo,
    # The pipeline puts its own here.
    ann_file='work_dirs/cast_cityscapes/labels/labeled_10percent_seed0.json',
    data_prefix=dict(img=data_root + 'leftImg8bit/train/'),
    filter_cfg=dict(filter_empty_gt=False),
    pipeline=train_pipeline,
    backend_args=backend_args)

train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=labeled_dataset)

val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='leftImg8bit/val/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args))
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + 'annotations/instances_val.json',
    metric='segm',
    format_only=False,
    backend_args=backend_args)
test_evaluator = val_evaluator
