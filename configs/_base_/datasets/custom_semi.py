# Labeled images beside pseudo-labeled ones, one to one in every batch.
_base_ = './custom.py'

pseudo_dataset = dict(
    type='PseudoLabelDataset',
    metainfo=_base_.metainfo,
    ann_file='work_dirs/cast_custom/pseudo_labels.json',
    data_prefix=dict(img=''),
    score_thr=0.5,
    pipeline=_base_.train_pipeline,
    backend_args=_base_.backend_args)

train_dataloader = dict(
    # Not the one that groups by orientation: crops are square, and it waits for ever for a portrait labeled image
    # to go with a portrait unlabeled one if there is none.
    sampler=dict(_delete_=True, type='MultiSourceSampler', batch_size=4, source_ratio=[1, 1]),
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=[_base_.labeled_dataset, pseudo_dataset]))
