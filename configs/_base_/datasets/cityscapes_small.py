# Cityscapes 160 or 320 pixels high: whole images, as they are. Data: docs/data.md. Objects of fewer than 80
# pixels are groups in the files of training, and pseudo-labels of that size are left out.
_base_ = './coco_instances.py'
data_root = 'data/cityscapes_160/'
folder = 'work_dirs/cast_cityscapes_small/01_data/'
classes = ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')
metainfo = dict(classes=classes)
images = dict(metainfo=metainfo, data_prefix=dict(img=data_root + 'leftImg8bit/'))

train_pipeline = [*_base_.load, *_base_.colour, *_base_.flip, *_base_.filter_and_pack]
original_size = dict(type='Resize', scale_factor=1.0, keep_ratio=True)
test_pipeline = [*_base_.load_image, original_size, *_base_.load_masks, *_base_.pack]

labeled = dict(
    _base_.labeled, **images, ann_file=folder + 'labeled_10percent_seed0.json', pipeline=train_pipeline)
pseudo = dict(labeled, **dict(_base_.pseudo, score_thr=0.4, min_visible=0.5, min_area=80))
loading = dict(batch_size=6, num_workers=1)
train_dataloader = dict(loading, dataset=labeled)
sampler = dict(type='ResumableMultiSourceSampler', batch_size=6, source_ratio=[1, 2])
semi_dataloader = dict(loading, sampler=sampler, dataset=dict(datasets=[labeled, pseudo]))
val_dataloader = dict(
    num_workers=1, dataset=dict(images, ann_file=folder + 'val.json', pipeline=test_pipeline))
test_dataloader = dict(
    num_workers=1, dataset=dict(images, ann_file=folder + 'test.json', pipeline=test_pipeline))

# AP of objects of at least 16x16 pixels, which tables and the best checkpoint go by; of those of 80 pixels and
# more; of all; and of at least 16x16 pixels in classes that have ten of them, as one or two decide those of others.
figures = dict(
    coco=dict(min_area=256), coco_80=dict(min_area=80), coco_all=dict(),
    coco_frequent=dict(min_area=256, min_objects=10))
metric = _base_.val_evaluator
val_evaluator = [
    dict(metric, ann_file=folder + 'val.json', prefix=name, **options) for name, options in figures.items()]
test_evaluator = [
    dict(metric, ann_file=folder + 'test.json', prefix=name, **options) for name, options in figures.items()]
