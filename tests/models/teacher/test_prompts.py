import pytest
import torch
from tiny_teacher import teacher, teacher_config

from mmcast.errors import CASTError
from mmcast.models.teacher.prompts import ClassPrompts, scores_of_classes, texts_of_classes
from mmcast.testing.data import make_samples
from mmcast.testing.models import build_model

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


@pytest.mark.parametrize('texts', ['', ' ', [], ['cell', ''], [None], 5])
def test_a_class_without_a_text_is_refused(texts):
    with pytest.raises(CASTError, match="class 'Zelle' needs at least one text"):
        texts_of_classes(CLASSES, {'Zelle': texts})


# Prompts of Grounding-DINO


NAMES = ['Zelle', 'nucleus', 'Rand_(x)']
PROMPTS = {'Zelle': ['cell', 'living cell', 'Cell'], 'Rand_(x)': 'edge'}


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    return teacher(tmp_path_factory.mktemp('teacher'), classes=NAMES, prompts=PROMPTS)


def spelled(network, prompt, tokens):
    """What the marked tokens of a prompt say, without spaces."""
    ids = network.language_model.tokenizer(prompt.caption).input_ids
    kept = [ids[i] for i in tokens.nonzero().flatten()]
    return network.language_model.tokenizer.decode(kept).replace(' ', '')


def test_synonyms_are_entities_of_one_prompt_and_each_text_of_a_class_is_there_once(network):
    prompt = network.grounding_dino.prompts.whole
    assert prompt.caption == 'cell. living cell. nucleus. edge. '
    assert prompt.classes == (0, 1, 2) and prompt.class_of_text.tolist() == [0, 0, 1, 2]
    texts = [spelled(network.grounding_dino, prompt, tokens) for tokens in prompt.tokens_of_text]
    assert texts == ['cell', 'livingcell', 'nucleus', 'edge']


def test_the_score_of_a_class_is_the_highest_mean_over_the_tokens_of_one_of_its_texts(network):
    prompt = network.grounding_dino.prompts.whole
    tokens = torch.rand(2, 5, prompt.tokens_of_text.shape[1])
    expected = torch.zeros(2, 5, 3)
    for owner, spelling in zip(prompt.class_of_text.tolist(), prompt.tokens_of_text):
        for i in range(2):
            for j in range(5):
                mean = tokens[i, j][spelling].mean()
                expected[i, j, owner] = max(expected[i, j, owner], mean)
    torch.testing.assert_close(scores_of_classes(tokens, prompt), expected)


def test_in_training_the_tokens_of_all_synonyms_are_positive(network):
    images, samples = make_samples([4], size=(64, 96), num_classes=3)
    samples[0].gt_instances.labels = torch.tensor([2, 0, 1, 0])
    outputs = network.forward_once(images, samples).boxes
    positive = outputs.samples[0].gt_instances.positive_maps
    found = [spelled(network.grounding_dino, outputs.prompt, row) for row in positive]
    assert found == ['edge', 'celllivingcell', 'nucleus', 'celllivingcell']
    losses = network.loss_on(network.forward_once(images, samples), samples, [0])
    assert all(loss.isfinite() for loss in losses.values())


def test_texts_of_a_class_stay_together_where_prompts_are_split(network):
    """Else two prompts would find an object of the class twice."""
    names = [a + b for a in 'abcd' for b in 'kl']
    prompts = {name: [name, name[::-1], name + name] for name in names}
    found = ClassPrompts(network.grounding_dino, names, None, prompts).all
    assert [i for prompt in found for i in prompt.classes] == list(range(8)) and len(found) == 2
    for prompt in found:
        assert prompt.class_of_text.bincount().tolist() == [3] * len(prompt.classes)
    tokenizer = network.grounding_dino.language_model.tokenizer
    assert all(len(tokenizer(prompt.caption).input_ids) <= 48 for prompt in found)


@pytest.mark.parametrize(
    'prompts, message',
    [
        ({'Zelle': ['cell', 'nucleus']}, "'Zelle' and 'nucleus' are both asked for by 'nucleus'"),
        ({'Zelle': ['cell', 'Nucleus']}, 'asked for by .nucleus.; .* capitals do not count'),
        ({'Zelle': ['cell', 'St. X']}, "'St. X' cannot be prompted.*another text for it in"),
        ({'Zelle': ['abcdefgh' * 3, 'ijklmnop' * 3]}, 'and 1 more texts has 50 tokens'),
        ({'zelle': 'cell'}, "no class 'zelle'; did you mean Zelle"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(tmp_path, prompts, message):
    with pytest.raises(CASTError, match=message):
        build_model(teacher_config(tmp_path, classes=NAMES, prompts=prompts))
