# Toy Cityscapes (mmcast.datasets.toy_cityscapes): 112x224 street scenes, the eight instance classes, COCO JSON.
_base_ = './coco_instances.py'

data_root = 'data/toy_cityscapes/'
image_size = (112, 224)
classes = ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')
metainfo = dict(classes=classes)

train_pipeline = [
    dict(type='LoadImage', backend_args=_base_.backend_args),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=True),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=image_size[::-1], ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=image_size[::-1], allow_negative_crop=True),  # mmdet: width, height
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2), by_mask=True, keep_empty=False),
    dict(type='PackDetInputs', meta_keys=_base_.meta_keys),
]
test_pipeline = [
    dict(type='LoadImage', backend_args=_base_.backend_args),
    dict(type='Resize', scale=image_size[::-1], keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=_base_.meta_keys),
]

labeled_dataset = dict(
    metainfo=metainfo,
    data_root=data_root,
    ann_file='annotations/labeled_10percent_seed0.json',
    data_prefix=dict(img='leftImg8bit/train/'),
    pipeline=train_pipeline)

train_dataloader = dict(batch_size=6, num_workers=1, dataset=labeled_dataset)

val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        metainfo=metainfo,
        data_root=data_root,
        data_prefix=dict(img='leftImg8bit/val/'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
