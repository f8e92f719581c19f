"""The OpenAPI description of each verb."""

from __future__ import annotations

from html import escape
from typing import Any

from sharpwave.serve.verbs import REQUIRED, VERBS, Schema, Verb
from sharpwave.serve.wire import BINARY, JSON

KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "maxLength": 128},
    "description": "a write that is sent again with the same key is not done again: it gives the result of the first",
}
ERROR: Schema = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "kind": {"type": "string"}},
    "required": ["error"],
}
ERRORS = {
    "400": "an argument is wrong; the line names it",
    "401": "the bearer token is missing or wrong",
    "403": "it comes from a page of another origin",
    "404": "no such memory, episode or channel",
    "409": "another embedder filled the store, or the key was used for another request",
    "408": "the headers or the body took too long to arrive",
    "413": "the body or the answer would be too large",
    "415": "the content type is neither",
    "421": "it was asked by a name that is not this server's",
    "431": "the headers are too long",
    "503": "too much at once, or the server is closing: try again",
    "504": "it took too long",
    "507": "the disk is full; with Retry-After, the write may be sent again with its key",
}


POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""The content security policy of the page: it loads and runs nothing."""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>sharpwave</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto }} td, th {{ text-align: left; \
vertical-align: top; padding: .2em 1em .2em 0 }}</style></head>
<body><h1>sharpwave</h1><p>Each verb is <code>POST /v1/verb</code> with its arguments in a JSON object or a safetensors
file; those in bold have to be there. <a href="/openapi.json">/openapi.json</a> says it to programs.</p>
<table><tr><th>Verb</th><th>Arguments</th><th></th></tr>{rows}</table></body></html>
"""


def page() -> str:
    """The verbs as a page for browsers, without scripts and without content of other sites."""
    rows: list[str] = []
    for verb in VERBS.values():
        names = [
            f"<b>{escape(name)}</b>" if default is REQUIRED else escape(name)
            for name, default in verb.arguments.items()
        ]
        cells = (f"<code>{escape(verb.name)}</code>", ", ".join(names), escape(verb.summary))
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return PAGE.format(rows="\n".join(rows))


def operation(verb: Verb) -> dict[str, Any]:
    """The OpenAPI entry of a verb, except its path and summary."""
    required = [name for name, default in verb.arguments.items() if default is REQUIRED]
    schema: Schema = {
        "type": "object",
        "properties": {name: form.schema for name, form in verb.forms.items()},
        "additionalProperties": False,
    }
    if required:
        schema["required"] = required
    binary = {"schema": {"type": "string", "format": "binary"}}
    said = "As safetensors, arrays are tensors of these names; the rest is JSON under `data` in the metadata."
    answers: dict[str, Any] = {
        "200": {"description": "the result", "content": {JSON: {"schema": {"type": "object"}}, BINARY: binary}}
    }
    for status, meaning in ERRORS.items():
        answers[status] = {"description": meaning, "content": {JSON: {"schema": ERROR}}}
    return {
        "description": said,
        "requestBody": {"required": bool(required), "content": {JSON: {"schema": schema}, BINARY: binary}},
        "responses": answers,
        **({"parameters": [KEY]} if verb.kind == "write" else {}),
    }
