"""The `filters` parameter: `{"label": ["a"]}` from Python's clients, `{"label": {"a": true}}` from Go's. Pure."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from dom0.socketproxy import strict
from dom0.socketproxy.refusal import BAD_REQUEST, Refused
from dom0.socketproxy.scope import Scope


class Filters(msgspec.Struct, frozen=True):
    values: Mapping[str, list[str]]

    @classmethod
    def read(cls, text: str) -> Filters:
        """Raises Refused."""
        found = strict.parse(text.encode()) if text else {}
        if not isinstance(found, dict):
            raise Refused(BAD_REQUEST, "filters: no object")
        values = {}
        for key, value in found.items():
            texts = [text for text, chosen in value.items() if chosen is True] if isinstance(value, dict) else value
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise Refused(BAD_REQUEST, f"filters: {key}: a list of texts is expected")
            values[key] = texts
        return cls(values)

    def written(self) -> str:
        return json.dumps(self.values)

    def checked(self, known: tuple[str, ...]) -> Filters:
        """Raises Refused for others."""
        if unknown := sorted(set(self.values) - set(known)):
            raise Refused(BAD_REQUEST, f"invalid filter '{unknown[0]}'")
        return self

    def with_values(self, key: str, values: list[str]) -> Filters:
        return Filters({**self.values, key: values})

    def without(self, *keys: str) -> Filters:
        return Filters({key: values for key, values in self.values.items() if key not in keys})

    def fit(self, labels: Mapping[str, str] | None) -> bool:
        """Whether `labels`, as a scope sees them, are those that are asked for: each `KEY` or `KEY=VALUE`."""
        found = labels or {}
        wanted = [text.partition("=") for text in self.values.get("label", ())]
        return all(key in found and (not equals or found[key] == value) for key, equals, value in wanted)

    def renamed(self, key: str, change: Callable[[str], str]) -> Filters:
        if key not in self.values:
            return self
        return self.with_values(key, [change(value) for value in self.values[key]])

    async def mapped(self, key: str, change: Callable[[str], Awaitable[str]]) -> Filters:
        if key not in self.values:
            return self
        return self.with_values(key, [await change(value) for value in self.values[key]])


def by_name(query: Mapping[str, str], known: tuple[str, ...], scope: Scope) -> Filters:
    """Of a list's parameters, as the Engine gets them, where its filters know a `name`. Raises Refused.

    Labels have other names there: `fit` looks at them.
    """
    filters = Filters.read(query.get("filters", "")).checked(known).without("label")
    return filters.renamed("name", scope.long_pattern)
