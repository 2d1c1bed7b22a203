# Cityscapes for the foundation teacher: whole images, which the teacher itself brings to the sizes of its halves.
_base_ = './cityscapes.py'

train_pipeline = [
    dict(type='LoadImage', backend_args=_base_.backend_args),
    dict(type='LoadCompressedAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2), by_mask=True, keep_empty=False),
    dict(type='PackDetInputs', meta_keys=_base_.meta_keys),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
