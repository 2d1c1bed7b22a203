# Any COCO data; configs/cast_custom.py fills in files, classes and sizes.
_base_ = './coco_instances.py'
image_size = 256  # the short side in pixels, and the side of training crops
scale = (2000, image_size)  # longest long side and short side
metainfo = dict(classes=('object', ))
any_class = dict(metainfo=metainfo, data_prefix=dict(img=''))

train_pipeline = [
    *_base_.load, dict(type='RandomResize', scale=scale, ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(image_size, image_size), allow_negative_crop=True),
    *_base_.flip, *_base_.colour, *_base_.filter_and_pack]
resize = dict(type='Resize', scale=scale, keep_ratio=True)
test_pipeline = [*_base_.load_image, resize, *_base_.load_masks, *_base_.pack]

folder = 'work_dirs/cast_custom/01_data/'
labeled = dict(
    _base_.labeled, **any_class, ann_file=folder + 'labeled.json', pipeline=train_pipeline)
loading = dict(batch_size=4, num_workers=1)
train_dataloader = dict(loading, dataset=labeled)
# Not the sampler that groups by orientation: crops are square, and it would wait forever for a portrait
# labeled image to go with a portrait unlabeled one where there is none.
sampler = dict(type='ResumableMultiSourceSampler', batch_size=4)
pseudo = dict(labeled, **dict(_base_.pseudo, score_thr=0.5, min_visible=0.5))
semi_dataloader = dict(loading, sampler=sampler, dataset=dict(datasets=[labeled, pseudo]))
val_dataloader = dict(
    num_workers=1, dataset=dict(any_class, ann_file=folder + 'val.json', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=folder + 'val.json', max_dets=100)
test_evaluator = val_evaluator
