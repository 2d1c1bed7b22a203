import pytest

from mmcast.errors import CASTError
from mmcast.models.teacher.prompts import texts_of_classes

CLASSES = ['Zelle', 'nucleus']


def test_a_class_is_asked_for_by_its_name_or_by_the_texts_that_stand_for_it():
    assert texts_of_classes(CLASSES) == [('Zelle',), ('nucleus',)]
    assert texts_of_classes(CLASSES, {'Zelle': 'cell'}) == [('cell',), ('nucleus',)]
    assert texts_of_classes(CLASSES, {'nucleus': ['nucleus', 'cell core']}) == [
        ('Zelle',),
        ('nucleus', 'cell core'),
    ]


def test_prompts_of_a_class_that_is_not_there_are_refused_with_the_nearest():
    with pytest.raises(CASTError, match="no class 'nucleos'; did you mean nucleus"):
        texts_of_classes(CLASSES, {'nucleos': 'nucleus'})


@pytest.mark.parametrize('texts', ['', ' ', [], ['cell', ''], [None]])
def test_a_class_without_a_text_is_refused(texts):
    with pytest.raises(CASTError, match="class 'Zelle' needs at least one text"):
        texts_of_classes(CLASSES, {'Zelle': texts})
