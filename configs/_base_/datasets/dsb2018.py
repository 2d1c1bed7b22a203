# Nuclei of the 2018 Data Science Bowl, 256x256 and 256x320 (COCO JSON, one class). Images are doubled in size: half
# of the nuclei are less than 13 pixels wide.
_base_ = './coco_instances.py'

data_root = '../shared/data/dsb2018/'
scale = (640, 512)
crop_size = (256, 256)
classes = ('nucleus', )
metainfo = dict(classes=classes)

train_pipeline = [
    dict(type='LoadImage', backend_args=_base_.backend_args),
    dict(type='LoadCompressedAnnotations', with_bbox=True, with_mask=True),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='RandomResize', scale=scale, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, allow_negative_crop=True),
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
    ann_file='work_dirs/cast_dsb2018/01_data/labeled_10percent_seed0.json',  # the pipeline puts its own here
    data_prefix=dict(img=data_root + 'images/'),
    pipeline=train_pipeline)

train_dataloader = dict(batch_size=4, num_workers=1, dataset=labeled_dataset)

val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        metainfo=metainfo,
        data_root=data_root,
        data_prefix=dict(img='images/'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader

# Up to 151 nuclei an image: COCO's default of 100 detections would cap the recall.
val_evaluator = dict(
    ann_file=data_root + 'annotations/instances_val.json',
    proposal_nums=(100, 1, 160))
test_evaluator = val_evaluator
