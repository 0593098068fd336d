"""A request that the agent answers, by its table in `api`: who may ask, for what, and of which types."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec

from dom0.names import Access

LARGEST_BODY = 64 * 1024  # bytes
LINES = "application/x-ndjson"
T = TypeVar("T")


class Lines(Generic[T]):
    """An answer of documents, one a line: all of them, or those that come, which go out as they come together."""

    def __init__(self, documents: Sequence[T] | AsyncGenerator[Sequence[T]]) -> None:
        self.documents = documents


class Route(msgspec.Struct, frozen=True, dict=True):
    """`command`: what does the same in a terminal; the journal has that it was asked for. `limit`: bytes of a body.

    What it asks for and answers are the types that its handler has: `asked` are the parameters of a GET, else the body.
    """

    access: Access
    handler: Callable[..., Awaitable[object]]
    command: str = ""
    limit: int = LARGEST_BODY

    @cached_property
    def asks(self) -> Any:
        """None: nothing."""
        return get_type_hints(self.handler).get("asked")

    @cached_property
    def answers(self) -> Any:
        return get_type_hints(self.handler)["return"]
