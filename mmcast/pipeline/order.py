"""The order in which the steps of a pipeline run."""

from collections.abc import Callable, Set

from mmcast.errors import CASTError


def order_steps(steps: list[dict] | dict[str, dict | None]) -> dict[str, dict]:
    """Definitions by name in the order in which they run, ``name`` and ``after`` taken out.

    Raises:
        CASTError: two have one name, or ``after`` names no step, or steps after one another.
    """
    if not isinstance(steps, dict):
        names = [step.get('name') for step in steps]
        if len(set(names)) < len(names):
            raise CASTError(f'two steps of one name; names are {", ".join(map(str, names))}')
        steps = {
            name: {key: value for key, value in step.items() if key != 'name'}
            for name, step in zip(names, steps, strict=True)
        }
    places = {name: step.pop('after', None) for name, step in steps.items() if step is not None}
    order = [name for name, after in places.items() if after is None]
    followers: dict[str, str] = {}  # the last step that was put behind another
    while waiting := [name for name in places if name not in order]:
        name = next((name for name in waiting if places[name] in order), None)
        if name is None:
            raise CASTError(
                f'step {waiting[0]} is to run after {places[waiting[0]]}, which is not a step that '
                f'could run before it; there are {", ".join(places)}'
            )
        after = places[name]
        order.insert(order.index(followers.get(after, after)) + 1, name)
        followers[after] = name
    return {name: steps[name] for name in order}


def order_by_need(
    definitions: dict[str, dict], needs: Callable[[str], Set[str]], place: str
) -> dict[str, dict]:
    """The definitions in their order, but each behind the steps whose outputs it uses.

    A dict of steps may have lost its order: a config's are appended to those of its base, and
    MMEngine sorts the keys of what it dumps.

    Args:
        definitions: by name.
        needs: gives the names of the steps whose outputs a step uses.
        place: the config's path, for the message.

    Raises:
        CASTError: steps use one another's outputs in a circle.
    """
    order: dict[str, dict] = {}

    def put(name: str, *users: str) -> None:
        if name in users:
            raise CASTError(
                f'{place}: steps use one another in a circle: {" <- ".join([*users, name])}'
            )
        needed = needs(name)
        for other in definitions:
            if other in needed and other not in order:
                put(other, *users, name)
        order[name] = definitions[name]

    for name in definitions:
        if name not in order:
            put(name)
    return order
