# The toy's foundation teacher as it is, which has seen synthetic streets alone: what adaptation is worth.
_base_ = ['../_base_/models/toy_teacher.py', '../_base_/datasets/cityscapes_small.py',
          '../_base_/schedules/toy.py']
