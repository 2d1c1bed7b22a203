# Cityscapes: 1024x2048 street scenes, the eight instance classes; made by `mmcast convert cityscapes`.
_base_ = './coco_instances.py'
data_root = 'data/cityscapes/'
classes = ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')
metainfo = dict(classes=classes)
scale, crop_size = (2048, 1024), (1024, 512)  # width and height

# Flip and colour come after the crop, where there are fewer pixels.
resize_and_crop = [
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, allow_negative_crop=True)]
train_pipeline = [
    *_base_.load, *resize_and_crop, *_base_.flip, *_base_.colour, *_base_.filter_and_pack]
test_pipeline = [
    *_base_.load_image, dict(type='Resize', scale=scale, keep_ratio=True), *_base_.load_masks,
    *_base_.pack]

labeled = dict(
    _base_.labeled,
    metainfo=metainfo,
    ann_file='work_dirs/cast_cityscapes/01_data/labeled_10percent_seed0.json',
    data_prefix=dict(img=data_root + 'leftImg8bit/train/'),
    pipeline=train_pipeline)
train_dataloader = dict(batch_size=8, num_workers=8, dataset=labeled)
semi_dataloader = dict(
    batch_size=8, num_workers=8, sampler=dict(batch_size=8),
    dataset=dict(datasets=[labeled, dict(labeled, **_base_.pseudo)]))
val_dataloader = dict(
    num_workers=4,
    dataset=dict(
        metainfo=metainfo, data_root=data_root, data_prefix=dict(img='leftImg8bit/val/'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

# For the configs that also report what cityscapesscripts says, which leaves out what is smaller than
# 100 pixels.
official_metric = dict(
    type='CityScapesMetric', seg_prefix=data_root + 'gtFine/val', outfile_prefix=None)
