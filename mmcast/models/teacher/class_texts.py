"""Class names of a data set as texts of SAM3, and CLIP's tokenizer that reads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from mmcast.errors import CASTError
from mmcast.models.teacher.prompts import read_texts
from mmcast.models.weights.reading import is_hub_name

TOKENIZER_SOURCE = 'https://huggingface.co/openai/clip-vit-base-patch32'
_FILES = ('vocab.json', 'merges.txt')


class ClassTexts:
    """The texts that ask for each class, as tokens, and the text encoder's output for them.

    Args:
        classes: Names in the data set's order.
        prompts: Class names to a text, or to several that mean the same; default the name itself.
        tokenizer: See :func:`read_clip_tokenizer`.
        max_tokens: The text encoder's length, with the tokens of beginning and end.

    Raises:
        CASTError: If a text is empty, longer than the text encoder's length or stands for two
            classes, or the tokenizer's files are not there.

    Attributes:
        texts: All texts, those of the first class first.
        labels: (T,), the class of each text.
        input_ids: (T, max_tokens), padded.
        attention_mask: (T, max_tokens) of bool, the tokens that are no padding.
    """

    def __init__(
        self,
        classes: Sequence[str],
        prompts: Mapping[str, str | Sequence[str]] | None,
        tokenizer: str,
        max_tokens: int,
    ) -> None:
        of_class = read_texts('SAM3', classes, prompts)
        self.texts = [text for texts in of_class for text in texts]
        labels = [label for label, texts in enumerate(of_class) for _ in texts]
        reader = read_clip_tokenizer(tokenizer)
        for text in self.texts:
            length = len(reader(text).input_ids)
            if length > max_tokens:
                raise CASTError(
                    f'SAM3 classes: the text {text[:40]!r} has {length - 2} tokens, a prompt holds '
                    f'{max_tokens - 2}; give a shorter one in `prompts`'
                )
        tokens = reader(self.texts, padding='max_length', max_length=max_tokens)
        with torch.device('cpu'):  # facts also where a network is built without memory
            self.labels = torch.tensor(labels)
            self.input_ids = torch.tensor(tokens['input_ids'])
            self.attention_mask = torch.tensor(tokens['attention_mask']).bool()
        self._states: Tensor | None = None
        self._weights_of_states: tuple | None = None

    def draw(self, classes: Tensor) -> Tensor:
        """One text, by index, of each of some classes (P,); a random one of its synonyms."""
        chosen = [(self.labels == label).nonzero()[:, 0] for label in classes.tolist()]
        return torch.stack([texts[torch.randint(len(texts), ())] for texts in chosen])

    def states(self, encoder: nn.Module, indices: Tensor) -> Tensor:
        """The text encoder's last hidden states (P, max_tokens, C) of the texts ``indices``.

        Where the encoder learns it reads these texts; else all are read once, in full precision,
        and kept until its weights or their place change.
        """
        parameters = list(encoder.parameters())
        device = parameters[0].device
        if torch.is_grad_enabled() and any(each.requires_grad for each in parameters):
            return self._read(encoder, indices, device)
        weights = (
            device,
            parameters[0].dtype,
            parameters[0].data_ptr(),
            sum(each._version for each in parameters),
        )
        if weights != self._weights_of_states:
            everything = torch.arange(len(self.texts))
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                self._states = self._read(encoder, everything, device)
            self._weights_of_states = weights
        return self._states[indices.to(device)]

    def _read(self, encoder: nn.Module, indices: Tensor, device: torch.device) -> Tensor:
        return encoder(
            input_ids=self.input_ids[indices].to(device),
            attention_mask=self.attention_mask[indices].to(device),
        ).last_hidden_state


def read_clip_tokenizer(name: str) -> CLIPTokenizer:
    """CLIP's tokenizer, which is SAM3's in both of its layouts.

    Args:
        name: A folder with ``tokenizer.json``, or with ``vocab.json`` and ``merges.txt``; or a name
            on Hugging Face, whose few files are then downloaded once.

    Raises:
        CASTError: If the files are not there; says which, from where and to which path.
    """
    folder = Path(name)
    if folder.is_dir():
        has_both = all((folder / file).is_file() for file in _FILES)
        if not has_both and not (folder / 'tokenizer.json').is_file():
            raise CASTError(_missing(f'{" and ".join(_FILES)} in {folder}', name))
    elif not is_hub_name(name):
        raise CASTError(_missing(f'folder {name}', name))
    try:
        return CLIPTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:  # no network, no such name
        raise CASTError(_missing(f'folder {name}', name)) from error


def _missing(what: str, name: str) -> str:
    return (
        f'tokenizer of SAM3: {what} not found, and Hugging Face gave none; download '
        f'{" and ".join(_FILES)} from {TOKENIZER_SOURCE} into {name} and set tokenizer to that '
        'folder'
    )
