# The method, step by step. A pipeline inherits this file and says where its data and weights are, which step
# configs are its teacher's ({teacher}_adapt_labeled.py, ...) and its student's, and what differs; docs/extend.md
# shows one. {NAME} is a variable, {STEP.NAME} what a step left; a step runs after those that it uses.
seed = 0
# {data_root}, {teacher}, {student}, {foundation_teacher} and {pretrained_student} are the pipeline's to say.
# teacher_options changes the teacher's config in each of its steps. threshold_folds, such as 3, or 'val', chooses
# the thresholds of pseudo-labels on images whose labels the teacher has not learned: docs/pseudo_labels.md.
# self_training=False leaves 1b out: the student learns from the labels of 1a.
variables = dict(percent=10, teacher_options=dict(), threshold_folds=None, self_training=True)
datasets = '{data}'  # the files that step `data` found or made

steps = dict(
    data=dict(
        kind='call', function='mmcast.coco.folder.prepare_coco_folder',
        kwargs=dict(
            root='{data_root}', out_dir='{work_dir}/01_data', seed='{seed}', percent='{percent}')),
    zero_shot=dict(
        kind='test', config='{teacher}_adapt_labeled.py', checkpoint='{foundation_teacher}',
        cfg_options='{teacher_options}'),
    adapt_labeled=dict(
        kind='train', config='{teacher}_adapt_labeled.py', load_from='{foundation_teacher}',
        cfg_options='{teacher_options}'),
    pseudo_label_1=dict(
        enabled='{self_training}', kind='pseudo_label', config='{teacher}_adapt_labeled.py',
        checkpoint='{adapt_labeled.checkpoint}', cfg_options='{teacher_options}'),
    folds=dict(kind='folds', folds='{threshold_folds}', train=['adapt_labeled']),
    thresholds_1=dict(
        kind='thresholds', folds='{threshold_folds}', held_out='{folds.held_out}',
        label='pseudo_label_1', used_by='adapt_self_training'),
    adapt_self_training=dict(
        enabled='{self_training}', instead='adapt_labeled', kind='train',
        config='{teacher}_adapt_self_training.py', load_from='{foundation_teacher}',
        pseudo_labels='{pseudo_label_1.annotations}', thresholds='{thresholds_1.thresholds}',
        cfg_options='{teacher_options}'),
    pseudo_label_2=dict(
        kind='pseudo_label', config='{teacher}_adapt_self_training.py',
        checkpoint='{adapt_self_training.checkpoint}', cfg_options='{teacher_options}'),
    thresholds_2=dict(
        kind='thresholds', folds='{threshold_folds}', held_out='{folds.held_out}',
        label='pseudo_label_2', used_by='transfer'),
    transfer=dict(
        kind='train', config='{student}_transfer.py', load_from='{pretrained_student}',
        pseudo_labels='{pseudo_label_2.annotations}', thresholds='{thresholds_2.thresholds}'),
    refine=dict(kind='train', config='{student}_refine.py', load_from='{transfer.checkpoint}'))
summary = dict(
    zero_shot='teacher, zero-shot',
    adapt_labeled='teacher, adapted on labels (1a)',
    adapt_self_training='teacher, self-trained (1b)',
    transfer='student, transferred (2)',
    refine='student, refined (3)')
report = dict(
    images=12,
    ann_file='{data.val}',
    img_dir='{data.val_images}',
    score_thr=0.3,
    columns=[
        dict(title='teacher pseudo-labels', step='adapt_self_training'),
        dict(title='student, transferred', step='transfer'),
        dict(title='student, refined', step='refine')])
