# Labeled images beside pseudo-labeled ones, one to one in every batch, whole.
_base_ = './cityscapes_teacher.py'

pseudo_dataset = dict(
    type='PseudoLabelDataset',
    metainfo=_base_.metainfo,
    ann_file='work_dirs/cast_cityscapes/pseudo_labels.json',  # the pipeline puts its own here
    data_prefix=dict(img=_base_.data_root + 'leftImg8bit/train/'),
    score_thr=0.3,
    pipeline=_base_.train_pipeline,
    backend_args=_base_.backend_args)

train_dataloader = dict(
    sampler=dict(_delete_=True, type='ResumableGroupMultiSourceSampler', batch_size=8, source_ratio=[1, 1]),
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=[_base_.train_dataloader.dataset, pseudo_dataset]))
