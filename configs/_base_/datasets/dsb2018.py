# Nuclei of the 2018 Data Science Bowl, 256x256 and 256x320, one class; made by `mmcast convert dsb2018`.
# Images are enlarged twofold: half of the nuclei are less than 13 pixels wide.
_base_ = './coco_instances.py'
data_root = 'data/dsb2018/'
classes = ('nucleus', )
metainfo = dict(classes=classes)
scale = (640, 512)

directions = ['horizontal', 'vertical', 'diagonal']
train_pipeline = [
    *_base_.load, *_base_.colour,
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=directions),
    dict(type='RandomResize', scale=scale, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(256, 256), allow_negative_crop=True),
    *_base_.filter_and_pack]
test_pipeline = [
    *_base_.load_image, dict(type='Resize', scale=scale, keep_ratio=True), *_base_.load_masks,
    *_base_.pack]

images = dict(img=data_root + 'images/')
labeled = dict(
    _base_.labeled, metainfo=metainfo, data_prefix=images, pipeline=train_pipeline,
    ann_file='work_dirs/cast_dsb2018/01_data/labeled_10percent_seed0.json')
pseudo = dict(labeled, **dict(_base_.pseudo, score_thr=0.4, min_visible=0.5))
loading = dict(batch_size=4, num_workers=1)
train_dataloader = dict(loading, dataset=labeled)
semi_dataloader = dict(loading, sampler=dict(batch_size=4), dataset=dict(datasets=[labeled, pseudo]))
val_file = data_root + 'annotations/instances_val.json'
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        metainfo=metainfo, data_prefix=images, pipeline=test_pipeline, ann_file=val_file))
test_dataloader = val_dataloader
# Up to 151 nuclei per image: COCO's default of 100 detections would cap the recall.
val_evaluator = dict(ann_file=val_file, max_dets=160)
test_evaluator = val_evaluator
