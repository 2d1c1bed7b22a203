# What each stage of configs/cast_cityscapes_small.py is worth: the method, and beside it students whose labels are a
# teacher's without adaptation or without self-training, one without the pixel loss, and one with an online teacher
# in addition. Without refinement is test_transfer.
_base_ = '../cast_cityscapes_small.py'
work_dir = 'work_dirs/cast_cityscapes_small_stages'
transfer, refine, test = _base_.steps.transfer, _base_.steps.refine, _base_.steps.test_refine
without = dict(
    adaptation=dict(transfer, pseudo_labels='{pseudo_label_0.annotations}'),
    self_training=dict(transfer, pseudo_labels='{pseudo_label_1.annotations}'),
    pixel=dict(transfer, cfg_options={'model.pixel_contrast': None}))
students = {f'without_{name}': step for name, step in without.items()}
students['online'] = dict(transfer, config='baselines/cityscapes_small_student_online_pseudo.py')
labels_0 = dict(
    _base_.steps.pseudo_label_1, config='{teacher}_zero_shot.py', checkpoint='{toy_teacher}')
steps = dict(pseudo_label_0=labels_0) | {
    f'transfer_{name}': step for name, step in students.items()} | {
    f'refine_{name}': dict(refine, load_from=f'{{transfer_{name}.checkpoint}}') for name in students} | {
    f'test_refine_{name}': dict(test, checkpoint=f'{{refine_{name}.checkpoint}}') for name in students}
summary = dict(
    test_refine_without_adaptation='student, teacher not adapted',
    test_refine_without_self_training='student, teacher adapted on labels (1a)',
    test_refine_without_pixel='student, without pixel loss',
    test_refine_online='student, with an online teacher too')
