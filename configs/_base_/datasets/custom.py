# Any COCO data; configs/cast_custom.py fills in files, classes and sizes.
_base_ = './coco_instances.py'

image_size = 256  # the short side in pixels, and the side of training crops
scale = (2000, image_size)  # longest and shortest side
metainfo = dict(classes=('object', ))

train_pipeline = [
    dict(type='LoadImage', backend_args=_base_.backend_args),
    dict(type='LoadCompressedAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=scale, ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(image_size, image_size), allow_negative_crop=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2), by_mask=True, keep_empty=False),
    dict(type='PackDetInputs', meta_keys=_base_.meta_keys),
]
test_pipeline = [
    dict(type='LoadImage', backend_args=_base_.backend_args),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadCompressedAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=_base_.meta_keys),
]

labeled_dataset = dict(
    metainfo=metainfo,
    ann_file='work_dirs/cast_custom/01_data/labeled.json',
    data_prefix=dict(img=''),
    pipeline=train_pipeline)

train_dataloader = dict(batch_size=4, num_workers=1, dataset=labeled_dataset)

val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        metainfo=metainfo,
        ann_file='work_dirs/cast_custom/01_data/val.json',
        data_prefix=dict(img=''),
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file='work_dirs/cast_custom/01_data/val.json', proposal_nums=(100, 1, 100))
test_evaluator = val_evaluator
