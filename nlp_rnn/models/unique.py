"""Objects that are shared, such as tied weights, each once."""

from collections.abc import Iterable
from typing import TypeVar

_Object = TypeVar("_Object")


def unique(objects: Iterable[_Object]) -> list[_Object]:
    """The distinct objects in their order, by identity.

    Exports keep a model's weights in this order, and trainings that begin with them read them so.
    """
    return list({id(each): each for each in objects}.values())
