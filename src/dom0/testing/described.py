"""Answers of an agent held against its own description, as a generated client would read them."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema

from dom0.testing.api import Answer

ERRORS = range(400, 600)


class Described:
    """`document` is OpenAPI; `seen` has the routes of which an answer, and of which a refusal was looked at."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self.seen: set[tuple[str, bool]] = set()

    @property
    def routes(self) -> set[str]:
        return {f"{method.upper()} {path}" for path, of in self.document["paths"].items() for method in of}

    def check(self, method: str, target: str, answer: Answer, body: Any = None) -> None:
        """Raises AssertionError, jsonschema.ValidationError."""
        route = self._find(method, target.partition("?")[0])
        path = route.split()[1]
        operation = self.document["paths"][path][method.lower()]
        is_refused = answer.status in ERRORS
        if not is_refused and body is not None and "requestBody" in operation:
            self._validate(body, operation["requestBody"]["content"]["application/json"])
        responses = operation["responses"]
        response = responses["default" if is_refused else str(answer.status)]
        self.seen.add((route, is_refused))
        if "content" not in response:
            assert answer.body == b""
            return
        media_type = response["content"][answer.content_type]
        is_stream = answer.content_type == "application/x-ndjson"
        for document in answer.body.splitlines() if is_stream else [answer.body]:
            self._validate(json.loads(document), media_type)

    def _find(self, method: str, target: str) -> str:
        (found,) = (
            route
            for route in self.routes
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route.split()[1]), target) and route.startswith(f"{method} ")
        )
        return found

    def _validate(self, document: Any, media_type: Any) -> None:
        schema = media_type["schema"] | {"components": self.document["components"]}
        jsonschema.Draft202012Validator(schema).validate(document)
