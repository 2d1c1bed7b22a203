# ADE20K: indoor and outdoor scenes, short side mostly 512, the 100 instance classes of the Places Challenge;
# made by tools/dataset_converters/ade20k.py.
_base_ = './coco_instances.py'

data_root = 'data/ADEChallengeData2016/'
scale = (2560, 630)  # longest long side and short side; only an aspect ratio above 4 meets the first
crop_size = (630, 630)
classes = (
    'bed', 'windowpane', 'cabinet', 'person', 'door', 'table', 'curtain', 'chair', 'car', 'painting', 'sofa',
    'shelf', 'mirror', 'armchair', 'seat', 'fence', 'desk', 'wardrobe', 'lamp', 'bathtub', 'railing',
    'cushion', 'box', 'column', 'signboard', 'chest of drawers', 'counter', 'sink', 'fireplace',
    'refrigerator', 'stairs', 'case', 'pool table', 'pillow', 'screen door', 'bookcase', 'coffee table',
    'toilet', 'flower', 'book', 'bench', 'countertop', 'stove', 'palm', 'kitchen island', 'computer',
    'swivel chair', 'boat', 'arcade machine', 'bus', 'towel', 'light', 'truck', 'chandelier', 'awning',
    'streetlight', 'booth', 'television receiver', 'airplane', 'apparel', 'pole', 'bannister', 'ottoman',
    'bottle', 'van', 'ship', 'fountain', 'washer', 'plaything', 'stool', 'barrel', 'basket', 'bag',
    'minibike', 'oven', 'ball', 'food', 'step', 'trade name', 'microwave', 'pot', 'animal', 'bicycle',
    'dishwasher', 'screen', 'sculpture', 'hood', 'sconce', 'vase', 'traffic light', 'tray', 'ashcan',
    'fan', 'plate', 'monitor', 'bulletin board', 'radiator', 'glass', 'clock', 'flag')
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
    ann_file='work_dirs/cast_ade20k/labels/labeled_10percent_seed0.json',
    data_prefix=dict(img=data_root + 'images/training/'),
    pipeline=train_pipeline)

train_dataloader = dict(batch_size=8, num_workers=8, dataset=labeled_dataset)

val_dataloader = dict(
    num_workers=4,
    dataset=dict(
        metainfo=metainfo,
        data_root=data_root,
        data_prefix=dict(img='images/validation/'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
