# Labeled images beside pseudo-labeled ones, one to one in every batch.
_base_ = './dsb2018.py'

pseudo_dataset = dict(
    type='PseudoLabelDataset',
    metainfo=_base_.metainfo,
    ann_file='work_dirs/cast_dsb2018/pseudo_labels.json',  # the pipeline puts its own here
    data_prefix=dict(img=_base_.data_root + 'images/'),
    score_thr=0.4,
    min_visible=0.5,
    pipeline=_base_.train_pipeline,
    backend_args=_base_.backend_args)

train_dataloader = dict(
    sampler=dict(_delete_=True, type='ResumableGroupMultiSourceSampler', batch_size=4, source_ratio=[1, 1]),
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=[_base_.labeled_dataset, pseudo_dataset]))
