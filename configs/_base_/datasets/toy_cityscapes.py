# Toy Cityscapes (mmcast.toy.cityscapes): synthetic 112x224 street scenes, the eight instance classes.
_base_ = './coco_instances.py'
data_root = 'data/toy_cityscapes/'
classes = ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')
metainfo = dict(classes=classes)
scale = (224, 112)  # width and height

masks = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
train_pipeline = [
    *_base_.load_image, masks, *_base_.colour, *_base_.flip,
    dict(type='RandomResize', scale=scale, ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=scale, allow_negative_crop=True), *_base_.filter_and_pack]
test_pipeline = [
    *_base_.load_image, dict(type='Resize', scale=scale, keep_ratio=True), masks, *_base_.pack]

common = dict(metainfo=metainfo, data_root=data_root)
labeled = dict(
    _base_.labeled, **common, ann_file='annotations/labeled_10percent_seed0.json',
    data_prefix=dict(img='leftImg8bit/train/'), pipeline=train_pipeline)
train_dataloader = dict(batch_size=6, num_workers=1, dataset=labeled)
semi_dataloader = dict(
    batch_size=6, num_workers=1, sampler=dict(batch_size=6, source_ratio=[1, 2]),
    dataset=dict(datasets=[labeled, dict(labeled, **dict(_base_.pseudo, min_visible=0.5))]))
val_images = dict(img='leftImg8bit/val/')
val_dataloader = dict(
    num_workers=1, dataset=dict(common, data_prefix=val_images, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
