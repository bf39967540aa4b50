"""Types and values that tyro handles without importing typeguard, which is slow."""

from dataclasses import replace
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from lightleak.cli.kinds import unmarked


def light(kind: Any) -> Any:
    """The same type: `int | None` as an Optional without our marks, a tuple or dict as a class parsed as before."""
    if get_origin(kind) in (UnionType, Union):
        return Union[tuple(unmarked(each) for each in get_args(kind))]  # noqa: UP007
    inner, marks = (get_args(kind)[0], get_args(kind)[1:]) if get_origin(kind) is Annotated else (kind, ())
    if marks and get_origin(inner) in (UnionType, Union):
        return Annotated[(light(inner), *marks)]  # type: ignore[return-value]
    if get_origin(inner) not in (tuple, dict):
        return kind
    plain, parsed = _plain(inner)
    return Annotated[(plain, parsed, *marks)]  # type: ignore[return-value]


def held(kind: Any, value: Any) -> Any:
    """The value in the form that the light type holds."""
    inner = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if isinstance(inner, type) and issubclass(inner, tuple | dict) and isinstance(value, inner.__mro__[1]):
        return inner(value)
    return value


@cache
def _plain(kind: Any) -> tuple[type, PrimitiveConstructorSpec[Any]]:
    made = type(get_origin(kind).__name__, (get_origin(kind),), {})
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, set()))
    assert isinstance(spec, PrimitiveConstructorSpec), kind
    return made, replace(spec, instance_from_str=lambda words: made(spec.instance_from_str(words)),
                         is_instance=lambda value: isinstance(value, made))  # fmt: skip
