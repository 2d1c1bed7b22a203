# Nuclei of the 2018 Data Science Bowl, 256x256 and 256x320 (COCO JSON, one class).
data_root = '../shared/data/dsb2018/'
image_size = (256, 256)
classes = ('nucleus', )
metainfo = dict(classes=classes)
backend_args = None

meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction', 'source')
train_pipeline = [
    dict(type='LoadImage', backend_args=backend_args),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=True),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='RandomResize', scale=image_size[::-1], ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=image_size[::-1], allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2), by_mask=True, keep_empty=False),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]
test_pipeline = [
    dict(type='LoadImage', backend_args=backend_args),
    dict(type='Resize', scale_factor=1.0, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]

labeled_dataset = dict(
    type='CocoDataset',
    metainfo=metainfo,
    ann_file='work_dirs/cast_dsb2018/labels/labeled_10percent_seed0.json',  # the pipeline puts its own here
    data_prefix=dict(img=data_root + 'images/'),
    filter_cfg=dict(filter_empty_gt=False),
    pipeline=train_pipeline,
    backend_args=backend_args)

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=labeled_dataset)

val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args))
test_dataloader = val_dataloader

# Up to 151 nuclei an image: COCO's default of 100 detections would cap the recall.
val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + 'annotations/instances_val.json',
    metric='segm',
    proposal_nums=(100, 1, 160),
    format_only=False,
    backend_args=backend_args)
test_evaluator = val_evaluator
