"""Functions whose arguments are the fields of a dataclass, so that one set of options serves them all.

A function that is written for one object, ``@takes(Call) def f(call: Call)``, is called with the fields of ``Call``. Type
checkers and editors see those arguments, with their types and defaults, and so do ``help()`` and :func:`inspect.signature`. A
new option is a new field; functions that pass options on do not name it.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

Call = TypeVar("Call")
Owner = TypeVar("Owner")
P = ParamSpec("P")
R = TypeVar("R")

#: The placeholder in a docstring for the documentation of the options.
_OPTIONS = re.compile(r"^\*\*options:\n(?:[ ]+\S.*\n)+", re.MULTILINE)


def takes(call: Callable[P, Call]) -> Callable[[Callable[[Call], R]], Callable[P, R]]:
    """Have a function of a ``call`` take the fields of the call as arguments."""

    def decorate(function: Callable[[Call], R]) -> Callable[P, R]:
        @functools.wraps(function)
        def with_call(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(_made(call, function.__qualname__, args, kwargs))

        _describe(with_call, call, owner=[])
        return with_call

    return decorate


def method_takes(
    call: Callable[P, Call],
) -> Callable[[Callable[[Owner, Call], R]], Callable[Concatenate[Owner, P], R]]:
    """Have a method of a ``call`` take the fields of the call as arguments."""

    def decorate(method: Callable[[Owner, Call], R]) -> Callable[Concatenate[Owner, P], R]:
        @functools.wraps(method)
        def with_call(self: Owner, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return method(self, _made(call, method.__qualname__, args, kwargs))

        owner = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        _describe(with_call, call, owner=[owner])
        return with_call

    return decorate


def chosen(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """The values that are fields of a dataclass."""
    return {field.name: values[field.name] for field in fields(kind) if field.name in values}


def _made(call: Callable[..., Call], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    try:
        bound = inspect.signature(call).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}() {error}") from None
    return call(*bound.args, **bound.kwargs)


def _describe(function: Callable[..., object], call: Callable[..., object], owner: list[inspect.Parameter]) -> None:
    returns = function.__annotations__.get("return", inspect.Signature.empty)
    signature = inspect.signature(call)
    signature = signature.replace(parameters=[*owner, *signature.parameters.values()], return_annotation=returns)
    function.__signature__ = signature  # type: ignore[attr-defined]  # what inspect.signature() and help() look for
    function.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()} | {
        "return": returns
    }
    if function.__doc__ is not None:  # with -OO there is none
        options = (
            "".join(_documented(base) for base in reversed(inspect.getmro(call))) if isinstance(call, type) else ""
        )
        function.__doc__ = _OPTIONS.sub(lambda _: options, inspect.cleandoc(function.__doc__) + "\n").rstrip()


def _documented(kind: type) -> str:
    """The documentation of each option in the docstring of a class of options."""
    text = inspect.cleandoc(kind.__doc__ or "") if is_dataclass(kind) else ""
    return text.partition("\n\n")[2].rstrip() + "\n" if "\n\n" in text else ""
