# What a pipeline is compared with: the same student, from the same start, trained on the labels only.
variables = dict(percent=10)
seed = 0
datasets = '{data}'
steps = dict(
    data=dict(
        kind='call',
        function='mmcast.coco.folder.prepare_coco_folder',
        kwargs=dict(
            root='{data_root}', out_dir='{work_dir}/01_data', seed='{seed}', percent='{percent}')),
    supervised=dict(
        kind='train', config='{student}_supervised.py', load_from='{pretrained_student}'))
summary = dict(supervised='student, supervised (best)')
