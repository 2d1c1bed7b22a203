# Cityscapes: 1024x2048 street scenes, the eight instance classes;
# made by tools/dataset_converters/cityscapes.py.
_base_ = './coco_instances.py'

data_root = 'data/cityscapes/'
scale = (2048, 1024)  # width and height
crop_size = (1024, 512)  # width and height as well
classes = ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')
metainfo = dict(classes=classes)

# Flip and colour come after the crop, where there are fewer pixels.
train_pipeline = [
    dict(type='LoadImage', backend_args=_base_.backend_args),
    dict(type='LoadCompressedAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, allow_negative_crop=True),
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
    # The pipeline puts its own here.
    ann_file='work_dirs/cast_cityscapes/labels/labeled_10percent_seed0.json',
    data_prefix=dict(img=data_root + 'leftImg8bit/train/'),
    pipeline=train_pipeline)

train_dataloader = dict(batch_size=8, num_workers=8, dataset=labeled_dataset)

val_dataloader = dict(
    num_workers=4,
    dataset=dict(
        metainfo=metainfo,
        data_root=data_root,
        data_prefix=dict(img='leftImg8bit/val/'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
