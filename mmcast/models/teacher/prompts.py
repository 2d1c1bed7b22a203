"""Class names of a data set as prompts of Grounding-DINO: one where they fit, several where they do
not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmdet.models.detectors import GroundingDINO
from mmdet.models.detectors.grounding_dino import clean_label_name
from torch import Tensor

from mmcast.errors import CASTError
from mmcast.spelling import hint

_SEPARATORS = '.?'  # the tokenizer starts a new entity at these


@dataclass(frozen=True)
class Prompt:
    """One text for Grounding-DINO.

    Attributes:
        classes: The data set's class indices that it asks for, in the order of the text.
        caption: The text, such as ``'person. rider. '``.
        tokens_of_class: (len(classes), text length) of bool, the tokens that spell each class.
    """

    classes: tuple[int, ...]
    caption: str
    tokens_of_class: Tensor


class ClassPrompts:
    """The prompts of one list of class names, and their text features.

    Names go in as entities of their own, so no part of a sentence has to be guessed (mmdet does
    that with NLTK data from the network). The language model is frozen: its features of a prompt
    are computed once and kept until its weights or their place change.

    Args:
        network: Grounding-DINO; tokenizes and reads the prompts.
        classes: Names in the data set's order.
        classes_per_prompt: At most so many in one prompt; ``None`` means as many as the text length
            holds.

    Raises:
        CASTError: If a name is empty, holds a separator, is longer than the text length or stands
            for two classes.
    """

    def __init__(
        self, network: GroundingDINO, classes: Sequence[str], classes_per_prompt: int | None = None
    ) -> None:
        self.network = network
        self.names = [clean_label_name(name).strip() for name in classes]
        self.max_tokens = min(network.language_model.max_tokens, network.bbox_head.max_text_len)
        self.lengths = [self._length(name, original) for name, original in zip(self.names, classes)]
        duplicates = [
            name for name in classes if self.names.count(clean_label_name(name).strip()) > 1
        ]
        if duplicates or not classes:
            raise CASTError(
                f'GroundedSAM classes: {", ".join(duplicates) or "none given"}; every class '
                'needs a name of its own, as text in brackets and underscores do not count'
            )
        everything = range(len(classes))
        self.all = [self.make(group) for group in self._groups(everything, classes_per_prompt)]
        self.whole = self.make(everything) if len(self._groups(everything, None)) == 1 else None
        self._features: dict[str, dict[str, Tensor]] = {}
        self._weights_of_features = None

    def _length(self, name: str, original: str) -> int:
        """Tokens of a name and the separator after it."""
        if not name or any(mark in name for mark in _SEPARATORS):
            raise CASTError(
                f'GroundedSAM classes: the name {original!r} cannot be prompted: it must have '
                f'letters outside of brackets and none of {_SEPARATORS}; rename it in `classes`'
            )
        length = len(self.network.language_model.tokenizer(name + '. ').input_ids) - 2
        if length + 2 > self.max_tokens:
            raise CASTError(
                f'GroundedSAM classes: the name {original[:40]!r} has {length} tokens, the prompt '
                f'holds {self.max_tokens - 2}; choose a shorter one in `classes`'
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
        names = [self.names[i] for i in classes]
        tokenized, caption, spans, _ = self.network.get_tokens_and_prompts(
            names, custom_entities=True
        )
        with torch.device('cpu'):  # it holds facts also where a network is built without memory
            _, tokens = self.network.get_positive_map(tokenized, spans)
        return Prompt(tuple(classes), caption, tokens > 0)

    def for_training(self, present: Tensor) -> Prompt:
        """The prompt of a training step: all classes; where they do not fit, those present and
        random others.

        Args:
            present: Class indices among the labels of the batch. Where not even these fit, some
                stay out; their objects are then none that the prompt asks for.
        """
        if self.whole is not None:
            return self.whole
        order = torch.randperm(len(self.names))
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
    """Scores (..., n) of a prompt's n classes: each the mean of its tokens' scores (..., T)."""
    weights = prompt.tokens_of_class.to(token_scores)
    return token_scores @ (weights / weights.sum(1, keepdim=True)).T


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
    texts = [(text,) if isinstance(text, str) else tuple(text) for text in found]
    for name, of_class in zip(classes, texts):
        if not of_class or not all(isinstance(text, str) and text.strip() for text in of_class):
            raise CASTError(f'prompts: class {name!r} needs at least one text, and none empty')
    return texts
