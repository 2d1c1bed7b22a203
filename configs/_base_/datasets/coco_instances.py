# What every COCO-style instance data set here shares: how to read, augment and pack an image, and how
# to evaluate. The files that inherit it say where the data are and how an image is resized; they take the
# pieces below as _base_.load, _base_.flip ...
backend_args = None
meta_keys = (
    'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction', 'source')

# Pieces of the pipelines.
load_image = [dict(type='LoadImage', backend_args=backend_args)]
load_masks = [dict(type='LoadCompressedAnnotations', with_bbox=True, with_mask=True)]
load = [*load_image, *load_masks]
flip = [dict(type='RandomFlip', prob=0.5)]
colour = [dict(type='PhotoMetricDistortion')]
pack = [dict(type='PackDetInputs', meta_keys=meta_keys)]
filter_and_pack = [
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2), by_mask=True, keep_empty=False), *pack]

labeled = dict(
    type='CocoDataset', filter_cfg=dict(filter_empty_gt=False), backend_args=backend_args)
train_dataloader = dict(
    persistent_workers=True, sampler=dict(type='InfiniteSampler', shuffle=True), dataset=labeled)

# Labeled and pseudo-labeled images in every batch, one to one. A config that wants both says
# train_dataloader = dict(_base_.semi_dataloader, _delete_=True).
pseudo = dict(type='PseudoLabelDataset', ann_file='pseudo_labels.json', score_thr=0.3)
semi_dataloader = dict(
    persistent_workers=True,
    sampler=dict(type='ResumableGroupMultiSourceSampler', source_ratio=[1, 1]),
    dataset=dict(type='ConcatDataset'))

val_dataloader = dict(
    batch_size=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        ann_file='annotations/instances_val.json',
        test_mode=True,
        backend_args=backend_args))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', metric='segm', format_only=False, backend_args=backend_args)
test_evaluator = val_evaluator
