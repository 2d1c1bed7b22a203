# ADE20K: indoor and outdoor scenes, short side mostly 512, the 100 instance classes of the Places
# Challenge; made by `mmcast convert ade20k`.
_base_ = './coco_instances.py'
data_root = 'data/ADEChallengeData2016/'
classes = (
    'bed', 'windowpane', 'cabinet', 'person', 'door', 'table', 'curtain', 'chair', 'car', 'painting',
    'sofa', 'shelf', 'mirror', 'armchair', 'seat', 'fence', 'desk', 'wardrobe', 'lamp', 'bathtub',
    'railing', 'cushion', 'box', 'column', 'signboard', 'chest of drawers', 'counter', 'sink',
    'fireplace', 'refrigerator', 'stairs', 'case', 'pool table', 'pillow', 'screen door', 'bookcase',
    'coffee table', 'toilet', 'flower', 'book', 'bench', 'countertop', 'stove', 'palm',
    'kitchen island', 'computer', 'swivel chair', 'boat', 'arcade machine', 'bus', 'towel', 'light',
    'truck', 'chandelier', 'awning', 'streetlight', 'booth', 'television receiver', 'airplane',
    'apparel', 'pole', 'bannister', 'ottoman', 'bottle', 'van', 'ship', 'fountain', 'washer',
    'plaything', 'stool', 'barrel', 'basket', 'bag', 'minibike', 'oven', 'ball', 'food', 'step',
    'trade name', 'microwave', 'pot', 'animal', 'bicycle', 'dishwasher', 'screen', 'sculpture', 'hood',
    'sconce', 'vase', 'traffic light', 'tray', 'ashcan', 'fan', 'plate', 'monitor', 'bulletin board',
    'radiator', 'glass', 'clock', 'flag')
metainfo = dict(classes=classes)
scale = (2560, 630)  # longest long side and short side; only an aspect ratio above 4 meets the first

# Flip and colour come after the crop, where there are fewer pixels.
train_pipeline = [
    *_base_.load,
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(630, 630), allow_negative_crop=True),
    *_base_.flip, *_base_.colour, *_base_.filter_and_pack]
resize = dict(type='Resize', scale=scale, keep_ratio=True)
test_pipeline = [*_base_.load_image, resize, *_base_.load_masks, *_base_.pack]

labeled = dict(
    _base_.labeled, metainfo=metainfo, data_prefix=dict(img=data_root + 'images/training/'),
    ann_file='work_dirs/cast_ade20k/01_data/labeled_10percent_seed0.json', pipeline=train_pipeline)
val = dict(metainfo=metainfo, data_root=data_root, data_prefix=dict(img='images/validation/'))
train_dataloader = dict(batch_size=8, num_workers=8, dataset=labeled)
both = dict(datasets=[labeled, dict(labeled, **_base_.pseudo)])
sampler = dict(type='ResumableMultiSourceSampler', batch_size=8)
semi_dataloader = dict(batch_size=8, num_workers=8, sampler=sampler, dataset=both)
val_dataloader = dict(num_workers=4, dataset=dict(val, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
