"""The HTTP service: one path per verb, bodies in JSON or safetensors, errors of one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from errno import EAGAIN
from typing import Any

from sharpwave import EmbedderError, FormatError, __version__
from sharpwave._lazy import MissingExtra
from sharpwave.serve import wire
from sharpwave.serve.ledger import Conflict, Unsettled
from sharpwave.serve.limits import App, Guard, Limits, Refused, one_line
from sharpwave.serve.metrics import Metrics
from sharpwave.serve.openapi import KEY, POLICY, operation, page
from sharpwave.serve.service import Service
from sharpwave.serve.tokens import checked
from sharpwave.serve.verbs import VERBS, Data, Verb

try:
    from fastapi import FastAPI, Request, Response
    from starlette.exceptions import HTTPException
except ImportError as error:
    raise MissingExtra(f"fastapi is needed for this ({error}): pip install 'sharpwave[serve]'") from None

BINARIES = (wire.BINARY, "application/octet-stream")
_LARGE = 1 << 16
"""JSON bodies of more bytes are read and written in a thread, so that they do not block the event loop."""


def create_app(
    service: Service,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    metrics: Metrics | None = None,
    allowed_hosts: Collection[str] | None = None,
) -> App:
    """The service as an ASGI application. It closes the service when it ends.

    Args:
        token: that every request but `/health` must bear.
        allowed_hosts: names under which it may be asked, beside those of the loopback address; by default none if there
            is no token, since any page could make a browser ask, and all if there is one.
    """
    bounds, counts = limits or Limits(), metrics or Metrics()
    token = None if token is None else checked(token)
    hosts = () if allowed_hosts is None and token is None else allowed_hosts
    counts.known = frozenset({*VERBS, "snapshot", "health", "metrics"})
    service.batcher.told = counts.batched

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        await asyncio.to_thread(service.close)

    api = FastAPI(
        title="sharpwave",
        version=__version__,
        summary="A value memory that many processes share.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    for verb in VERBS.values():
        api.post(f"/v1/{verb.name}", summary=verb.summary, openapi_extra=operation(verb), name=verb.name)(
            _answering(service, verb, bounds)
        )
    _beside(api, service, counts)
    for kind, worded in ((Refused, _refused), (HTTPException, _unknown), (Exception, _failed)):
        api.add_exception_handler(kind, worded)
    return Guard(api, bounds, token, counts, hosts)  # pyright: ignore[reportArgumentType]


def _answering(service: Service, verb: Verb, limits: Limits) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        try:
            key = _key(request)
            arguments = await _arguments(request)
            _within(verb, arguments, limits)
            waiting = asyncio.wrap_future(service.submit(verb.name, arguments, key))
            # Another request may wait for the same write, so it continues when this request is cancelled.
            found = await (asyncio.shield(waiting) if verb.kind == "write" else waiting)
        except (Refused, asyncio.CancelledError):
            raise
        except Exception as error:
            raise _worded(error) from error
        return await _response(request, found)

    return answer


def _beside(api: FastAPI, service: Service, counts: Metrics) -> None:
    """The routes that are no verbs: health, metrics, and the store as a whole."""

    @api.get("/health", summary="Whether it answers; needs no token.")
    async def health() -> dict[str, str]:
        return {"status": "closing" if service.closed else "ok", "version": __version__}

    @api.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(page(), media_type="text/html", headers={"Content-Security-Policy": POLICY})

    @api.get("/metrics", summary="Counters in Prometheus' text format.", response_class=Response)
    async def metrics() -> Response:
        def look() -> None:
            store = service.store
            counts.memories.set(len(store))
            counts.nbytes.set(store.nbytes)
            counts.episodes.labels("observed").set(store.episodes_observed)
            counts.episodes.labels("proposed").set(store.episodes_proposed)
            counts.journal.set(service.ledger.journal_size())

        await asyncio.to_thread(look)
        text, kind = counts.text()
        return Response(text, media_type=kind)

    @api.get("/v1/snapshot", summary="The whole store, as `ValueStore.save` writes it.", response_class=Response)
    async def snapshot() -> Response:
        found = await asyncio.wrap_future(service.read(lambda store: store.to_bytes()))
        return Response(found, media_type=wire.BINARY)

    @api.put("/v1/snapshot", summary="Take over the content of a snapshot.", openapi_extra={"parameters": [KEY]})
    async def become(request: Request) -> dict[str, Any]:
        try:
            key = _key(request)
            if _type(request) not in BINARIES:
                raise Refused(415, f"the content type must be {wire.BINARY}, got {_type(request)!r}", "TypeError")
            waiting = await asyncio.to_thread(service.become, await request.body(), key)
            await asyncio.shield(asyncio.wrap_future(waiting))
        except (Refused, asyncio.CancelledError):
            raise
        except Exception as error:
            raise _worded(error) from error
        return {}


# Bodies


def _key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= 128:
        raise Refused(400, "Idempotency-Key must have 1 to 128 characters")
    return key


def _type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _arguments(request: Request) -> Data:
    """What the body says. It has to have a type, which a page in a browser cannot send elsewhere unasked."""
    kind = _type(request)
    if kind not in (wire.JSON, *BINARIES):
        raise Refused(415, f"the content type must be {wire.JSON} or {wire.BINARY}, got {kind!r}", "TypeError")
    body = await request.body()
    if kind in BINARIES:
        return wire.unpack(body)
    return await asyncio.to_thread(wire.from_json, body) if len(body) > _LARGE else wire.from_json(body)


async def _response(request: Request, found: Data) -> Response:
    if wire.BINARY in request.headers.get("accept", ""):
        return Response(wire.pack(found), media_type=wire.BINARY)
    size = sum(array.size for array in wire.arrays(found))
    return Response(
        await asyncio.to_thread(wire.to_json, found) if 8 * size > _LARGE else wire.to_json(found),
        media_type=wire.JSON,
    )


def _within(verb: Verb, arguments: Data, limits: Limits) -> None:
    """Refuse what would ask for too many numbers, before any is made."""
    wanted = verb.size(arguments)
    if wanted > limits.answer:
        raise Refused(413, f"{verb.name}: an answer of {wanted} numbers is more than {limits.answer}")


# Errors


def _worded(error: Exception) -> Refused:
    """The HTTP response for an exception of the store."""
    if isinstance(error, Unsettled):
        return Refused(503 if error.errno == EAGAIN else 507, one_line(error), "OSError", later=True)
    kinds: tuple[tuple[type[BaseException], int], ...] = (
        (EmbedderError, 409),
        (Conflict, 409),
        (FormatError, 400),
        (KeyError, 404),
        (TypeError, 400),
        (BlockingIOError, 503),
        (MemoryError, 413),
        (ValueError, 400),
        (OverflowError, 400),
        (OSError, 507),
        (RuntimeError, 503),
        (CancelledError, 503),
    )
    for kind, status in kinds:
        if isinstance(error, kind):
            named = "ValueError" if kind in (Conflict, OverflowError) else kind.__name__
            return Refused(status, one_line(error), named)
    return Refused(500, f"{type(error).__name__}: {one_line(error)}", "RuntimeError")


async def _refused(request: Request, error: Exception) -> Response:
    del request
    refused = error if isinstance(error, Refused) else _worded(error)
    body, headers = refused.answer()
    return Response(body, refused.status, headers)


async def _unknown(request: Request, error: Exception) -> Response:
    """The framework's own: no such path, no such method."""
    status = getattr(error, "status_code", 500)
    said = f"{request.method} {request.url.path}: {str(getattr(error, 'detail', error)).lower()}"
    return await _refused(request, Refused(status, said, "KeyError"))


async def _failed(request: Request, error: Exception) -> Response:
    return await _refused(request, error)
