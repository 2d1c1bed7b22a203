"""The texts that a teacher is asked for classes with, and those as prompts of Grounding-DINO: one
where they fit, several where they do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmdet.models.detectors import GroundingDINO
from mmdet.models.detectors.grounding_dino import clean_label_name
from torch import Tensor

from mmcast.errors import CASTError
from mmcast.spelling import hint

#: Marks that no text may have, by teacher: Grounding-DINO's tokenizer starts a new entity at these.
SEPARATORS = dict(GroundedSAM='.?', SAM3='')


def texts_of_classes(
    classes: Sequence[str], prompts: Mapping[str, str | Sequence[str]] | None = None
) -> list[tuple[str, ...]]:
    """The texts that ask for each class: its own name, or what ``prompts`` has in its place.

    Args:
        classes: Names in the data set's order.
        prompts: Class names to a text, or to several that mean the same.

    Returns:
        At least one text for each class, in the order of ``classes``.

    Raises:
        CASTError: If ``prompts`` names a class that is not there, or has no text for one.
    """
    prompts = dict(prompts or {})
    for name in prompts:
        if name not in classes:
            raise CASTError(f'prompts: no class {name!r}; {hint(name, classes)}')
    found = [prompts.get(name, name) for name in classes]
    texts = [tuple(text) if isinstance(text, list | tuple) else (text,) for text in found]
    for name, of_class in zip(classes, texts):
        if not of_class or not all(isinstance(text, str) and text.strip() for text in of_class):
            raise CASTError(f'prompts: class {name!r} needs at least one text, and none empty')
    return texts


def read_texts(
    teacher: str, classes: Sequence[str], prompts: Mapping[str, str | Sequence[str]] | None
) -> list[tuple[str, ...]]:
    """The texts of :func:`texts_of_classes` as both teachers read them: without brackets, with
    spaces for underscores, each of a class once.

    Args:
        teacher: One of ``SEPARATORS``.
        classes: Names in the data set's order.
        prompts: Class names to a text, or to several that mean the same.

    Raises:
        CASTError: There is no class, or a text is empty, has a separator or asks for two classes;
            capitals do not count.
    """
    texts: list[tuple[str, ...]] = []
    owner_of: dict[str, int] = {}
    for owner, originals in enumerate(texts_of_classes(classes, prompts)):
        cleaned: dict[str, str] = {}
        for original in originals:
            text = clean_label_name(original).strip()
            _check_text(teacher, original, text)
            if owner_of.setdefault(text.lower(), owner) != owner:
                raise CASTError(
                    f'{teacher} classes: {classes[owner_of[text.lower()]]!r} and '
                    f'{classes[owner]!r} are both asked for by {text!r}; give each a text of its '
                    'own in `prompts`, as brackets, underscores and capitals do not count'
                )
            cleaned.setdefault(text.lower(), text)
        texts.append(tuple(cleaned.values()))
    if not texts:
        raise CASTError(
            f'{teacher} classes: none given; put the names of the data set into `classes`'
        )
    return texts


def _check_text(teacher: str, original: str, text: str) -> None:
    marks = SEPARATORS[teacher]
    if not text or any(mark in text for mark in marks):
        without = f' and none of {marks}' if marks else ''
        raise CASTError(
            f'{teacher} classes: the name {original!r} cannot be prompted: it must have letters '
            f'outside of brackets{without}; give another text for it in `prompts`, or rename it '
            'in `classes`'
        )


@dataclass(frozen=True)
class Prompt:
    """One text for Grounding-DINO.

    Attributes:
        classes: The data set's class indices that it asks for, in the order of the text.
        caption: The text, such as ``'person. pedestrian. rider. '``.
        class_of_text: (texts,) positions in ``classes``, in the order of the text; several texts
            may ask for one class.
        tokens_of_text: (texts, text length) of bool, the tokens that spell each text.
    """

    classes: tuple[int, ...]
    caption: str
    class_of_text: Tensor
    tokens_of_text: Tensor

    @property
    def tokens_of_class(self) -> Tensor:
        """(len(classes), text length) of bool, the tokens of all texts that ask for each class.

        In training all of them are positive for an object of the class: prediction takes the
        highest score of its texts, so each text has to find the class by itself.
        """
        found = torch.zeros(len(self.classes), self.tokens_of_text.shape[1])
        return found.index_add(0, self.class_of_text, self.tokens_of_text.float()) > 0


class ClassPrompts:
    """The prompts of one list of classes, and their text features.

    Texts go in as entities of their own, so no part of a sentence has to be guessed (mmdet does
    that with NLTK data from the network). All texts of a class are in one prompt. The language
    model is frozen: its features of a prompt are computed once and kept until its weights or their
    place change.

    Args:
        network: Grounding-DINO; tokenizes and reads the prompts.
        classes: Names in the data set's order.
        classes_per_prompt: At most so many in one prompt; ``None`` means as many as the text length
            holds.
        prompts: What to ask for in place of a class's name, see :func:`texts_of_classes`.

    Raises:
        CASTError: If a text is empty, holds a separator or stands for two classes, if those of a
            class are longer than the text length, or if ``prompts`` names no class.
    """

    def __init__(
        self,
        network: GroundingDINO,
        classes: Sequence[str],
        classes_per_prompt: int | None = None,
        prompts: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        self.network = network
        self.texts = read_texts('GroundedSAM', classes, prompts)
        self.max_tokens = min(network.language_model.max_tokens, network.bbox_head.max_text_len)
        self.lengths = [self._length(texts) for texts in self.texts]
        everything = range(len(classes))
        self.all = [self.make(group) for group in self._groups(everything, classes_per_prompt)]
        self.whole = self.make(everything) if len(self._groups(everything, None)) == 1 else None
        self._features: dict[str, dict[str, Tensor]] = {}
        self._weights_of_features = None

    def _length(self, texts: Sequence[str]) -> int:
        """Tokens of the texts of a class and the separators after them."""
        tokenizer = self.network.language_model.tokenizer
        length = sum(len(tokenizer(text + '. ').input_ids) - 2 for text in texts)
        if length + 2 > self.max_tokens:
            several = f' and {len(texts) - 1} more texts' if len(texts) > 1 else ''
            raise CASTError(
                f'GroundedSAM classes: the name {texts[0][:40]!r}{several} has {length} '
                f'tokens, the prompt holds {self.max_tokens - 2}; choose a shorter one in '
                '`classes`, or fewer and shorter texts in `prompts`'
            )
        return length

    def _groups(self, classes: Sequence[int], at_most: int | None) -> list[list[int]]:
        """Classes in order, as many to a group as it holds."""
        groups, used = [[]], 2  # [CLS] and [SEP]
        for index in classes:
            full = at_most is not None and len(groups[-1]) >= at_most
            if groups[-1] and (full or used + self.lengths[index] > self.max_tokens):
                groups, used = [*groups, []], 2
            groups[-1].append(index)
            used += self.lengths[index]
        return groups

    def make(self, classes: Sequence[int]) -> Prompt:
        """The prompt that asks for some classes, by index."""
        texts = [(place, text) for place, i in enumerate(classes) for text in self.texts[i]]
        tokenized, caption, spans, _ = self.network.get_tokens_and_prompts(
            [text for _, text in texts], custom_entities=True
        )
        with torch.device('cpu'):  # it holds facts also where a network is built without memory
            _, tokens = self.network.get_positive_map(tokenized, spans)
            class_of_text = torch.tensor([place for place, _ in texts])
        return Prompt(tuple(classes), caption, class_of_text, tokens > 0)

    def for_training(self, present: Tensor) -> Prompt:
        """The prompt of a training step: all classes; where they do not fit, those present and
        random others.

        Args:
            present: Class indices among the labels of the batch. Where not even these fit, some
                stay out; their objects are then none that the prompt asks for.
        """
        if self.whole is not None:
            return self.whole
        order = torch.randperm(len(self.texts))
        is_present = torch.isin(order, present.cpu())
        first = self._groups(torch.cat([order[is_present], order[~is_present]]).tolist(), None)[0]
        return self.make(sorted(first))

    @torch.no_grad()
    def features(self, prompt: Prompt, batch_size: int) -> dict[str, Tensor]:
        """The language model's output for a prompt, once for each image of a batch, as mmdet takes
        it.
        """
        model = self.network.language_model
        parameter = next(model.parameters())
        weights = (
            parameter.device,
            parameter.dtype,
            sum(each._version for each in model.parameters()),
        )
        if weights != self._weights_of_features or len(self._features) > 2 * len(self.all) + 8:
            self._features.clear()  # of other weights, or random and not needed again
            self._weights_of_features = weights
        if prompt.caption not in self._features:
            with torch.autocast(parameter.device.type, enabled=False):
                self._features[prompt.caption] = model([prompt.caption])
        return {
            key: value.expand(batch_size, *value.shape[1:])
            for key, value in self._features[prompt.caption].items()
        }


def scores_of_classes(token_scores: Tensor, prompt: Prompt) -> Tensor:
    """Scores (..., n) of a prompt's n classes from those of tokens (..., T): each the highest of
    the class's texts, of which each has the mean of its tokens.
    """
    weights = prompt.tokens_of_text.to(token_scores)
    with torch.autocast(token_scores.device.type, enabled=False):
        of_texts = token_scores @ (weights / weights.sum(1, keepdim=True)).T
    owners = prompt.class_of_text.to(of_texts.device).expand_as(of_texts)
    scores = of_texts.new_zeros((*of_texts.shape[:-1], len(prompt.classes)))
    return scores.scatter_reduce(-1, owners, of_texts, 'amax', include_self=False)
