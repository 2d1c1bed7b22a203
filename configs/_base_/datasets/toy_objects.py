# Synthetic nuclei and varied street scenes as objects of one class, all labeled; otherwise as custom data.
_base_ = './custom.py'
folder = 'data/'
annotations = folder + 'toy_objects/instances_'
train_pipeline = [
    *_base_.load,
    dict(type='RandomResize', scale=_base_.scale, ratio_range=(0.8, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(_base_.image_size, _base_.image_size), allow_negative_crop=True),
    *_base_.flip, *_base_.colour, *_base_.filter_and_pack]
images = dict(data_prefix=dict(img=folder))
train_dataloader = dict(
    dataset=dict(images, ann_file=annotations + 'train.json', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(images, ann_file=annotations + 'val.json'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=annotations + 'val.json')
test_evaluator = val_evaluator
