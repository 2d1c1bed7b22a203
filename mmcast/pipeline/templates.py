"""Templates in a pipeline config, ``{variable}``, ``{step.output}`` and ``{step}``, and what they
stand for.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from mmcast.errors import CASTError
from mmcast.pipeline.settings import check_output
from mmcast.pipeline.state import PipelineState
from mmcast.spelling import hint, nearest
from mmcast.typed_values import TEMPLATE

# What gives the value of a template that is no variable, from its name and the variables that it
# stands in, the innermost first.
_Lookup = Callable[[str, tuple[str, ...]], Any]


@dataclass(frozen=True)
class Disabled:
    """A step that does not run.

    Attributes:
        switch: what is False.
        instead: the step whose outputs are used in place of its own; None: none.
    """

    switch: str
    instead: str | None


@dataclass(frozen=True)
class Templates:
    """What the templates of one pipeline config stand for.

    Attributes:
        place: the config's path, for messages.
        variables: the values of templates that are not outputs of steps, their own templates
            unresolved.
        steps: definitions of the steps that run, by name.
        disabled: the steps that do not run, and what stands in for them.
        off: names of the steps that have nothing to do; their outputs are None.
    """

    place: str
    variables: Mapping[str, Any]
    steps: Mapping[str, dict] = field(default_factory=dict)
    disabled: Mapping[str, Disabled] = field(default_factory=dict)
    off: Set[str] = frozenset()

    def fill_in(self, value: Any) -> Any:
        """``value`` with the variables in it, and templates of outputs as they are, but of the
        steps that stand in for others.
        """

        def output(name: str, _: tuple[str, ...]) -> str:
            step, dot, rest = name.partition('.')
            other = self.disabled.get(step)
            return f'{{{(other and other.instead) or step}{dot}{rest}}}'

        return self._replace(value, output)

    def resolve(self, value: Any, user: str, state: PipelineState | None = None) -> Any:
        """``value`` with its templates replaced.

        Args:
            value: from the config.
            user: who needs it, for the message.
            state: knows the outputs of finished steps.

        Raises:
            CASTError: a template is unknown, or of a step that is not finished.
        """

        def output(name: str, inside: tuple[str, ...]) -> Any:
            place = f'variables.{inside[0]}' if inside else user
            return self.output(name, place, state, inside)

        return self._replace(value, output)

    def output(
        self, name: str, user: str, state: PipelineState | None, inside: tuple[str, ...] = ()
    ) -> Any:
        """The value of a template that is no variable: one output of a step, or all.

        Args:
            name: of the template.
            user: who needs it, for the message.
            state: knows the outputs of finished steps.
            inside: the variables that the template stands in, the innermost first.

        Raises:
            CASTError: it is unknown, or of a step that is not finished.
        """
        step, _, output = name.partition('.')
        step = self._used_for(step, name, user)
        if step in self.off:
            return None
        if step not in self.steps:
            raise CASTError(self._unknown(name, user, inside))
        if state is None or not state.finished(step):
            raise CASTError(
                f'{user} needs {{{name}}}, but step {step} is not finished; run it first: --step '
                f'{step}'
            )
        outputs = state.outputs(step)
        if not output:
            return outputs
        if output == 'best_checkpoint' and output not in outputs and 'checkpoint' in outputs:
            raise CASTError(
                f'{user} uses {{{name}}}, but step {step} kept no best checkpoint: its config has '
                'no save_best, or no validation gave that figure, as where nothing was found'
            )
        if output not in outputs:
            raise CASTError(
                f'{user} uses {{{name}}}, but step {step} gave no {output}; {hint(output, outputs)}'
            )
        return outputs[output]

    def steps_in(self, value: Any, user: str) -> set[str]:
        """Names of the steps whose outputs are in ``value``, directly or through variables.

        Raises:
            CASTError: it has a name that is neither a variable nor a step.
        """
        used: set[str] = set()

        def note(template: str, inside: tuple[str, ...]) -> str:
            step, _, output = template.partition('.')
            step = self._used_for(step, template, user)
            if step in self.off:
                return ''
            if step not in self.steps:
                raise CASTError(self._unknown(template, user, inside))
            check_output(step, self.steps[step], output, f'{self.place}: {user}')
            used.add(step)
            return ''

        self._replace(value, note)
        return used

    def why_idle(self, name: str) -> str | None:
        """That a step of the config does not run, and why; None of any other."""
        if name in self.disabled:
            return f'step {name} does not run, as {self.disabled[name].switch} is False'
        return f'step {name} does not run with these settings' if name in self.off else None

    def _replace(self, value: Any, other: _Lookup) -> Any:
        """``value`` with the variables in it, and with what ``other`` gives for the templates that
        are none, or stand inside themselves.
        """

        def lookup(name: str, *inside: str) -> Any:
            if name not in self.variables or name in inside:
                return other(name, inside)
            return resolve(self.variables[name], lambda inner: lookup(inner, name, *inside))

        return resolve(value, lookup)

    def _used_for(self, name: str, template: str, user: str) -> str:
        """The step whose outputs a template of step ``name`` means: the one that stands in for it
        where it is disabled.

        Raises:
            CASTError: none does.
        """
        if name not in self.disabled:
            return name
        step = self.disabled[name].instead
        if step is None:
            raise CASTError(
                f'{self.place}: {user} uses {{{template}}}, but {self.why_idle(name)}, and none '
                'stands in for it'
            )
        return step

    def _unknown(self, template: str, user: str, inside: tuple[str, ...]) -> str:
        variables = [name for name in self.variables if name not in inside]
        known = [*variables, *(f'{step}.<output>' for step in self.steps)]
        output = template.partition('.')[2]
        steps = [f'{name}.{output}' if output else name for name in self.steps]
        similar = nearest(template, [*variables, *steps])
        meant = f'did you mean {similar}?' if similar else f'known are {", ".join(known)}'
        return f'{self.place}: {user} uses {{{template}}}, which is not known; {meant}'


def resolve(value: Any, lookup: Callable[[str], Any]) -> Any:
    """Replaces templates in the strings of nested dicts and lists.

    Args:
        value: anything; only the strings in it are resolved (dict keys are not).
        lookup: gives the value of a name, raises for an unknown one.

    Returns:
        A copy. A string that is exactly one template becomes the value itself, of whatever type.
    """
    if isinstance(value, dict):
        return {key: resolve(item, lookup) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(resolve(item, lookup) for item in value)
    if not isinstance(value, str):
        return value
    whole = TEMPLATE.fullmatch(value)
    if whole:
        return lookup(whole[1])
    return TEMPLATE.sub(lambda match: str(lookup(match[1])), value)


def names_in(value: Any) -> set[str]:
    """The names of all templates in the strings of nested dicts and lists."""
    found: set[str] = set()

    def note(name: str) -> str:
        found.add(name)
        return ''

    resolve(value, note)
    return found
