"""One request to the Engine and its answer back. Every request has a connection of its own, which ends with it.

The Engine is told to close after one answer, so what a client sends behind its request is never read as another one
(seen on Docker 26.1: an exec that is started detached, or is not there, is answered without the upgrade asked for).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from http import HTTPStatus

import h11
import msgspec

from dom0.engine.frames import LineSplitter
from dom0.http.channel import Channel, Headers, Malformed, while_sending
from dom0.socketproxy.context import Archive, Call, Context, Document, Line
from dom0.socketproxy.refusal import BAD_REQUEST, Refused
from dom0.socketproxy.splice import splice
from dom0.socketproxy.tarstream import BLOCK, Pieces
from dom0.socketproxy.upstream import BAD_GATEWAY, HOST

LONGEST_LINE = 16 << 20  # bytes
LONGEST_REFUSAL = 64 << 10
GATHERED = 0.0005  # seconds
GONE_WITHIN = 1.0  # seconds until a client that has gone is noticed where nothing comes
RAW_STREAMS = ("application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream")
PASSED_HEADERS = ("content-type", "x-docker-container-path-stat", "docker-experimental", "ostype", "server")
SKIPPABLE = tuple(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60))  # frames of zstd: RFC 8878, 3.1.2
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", *SKIPPABLE)  # gzip, bzip2, xz, zstd
USTAR_AT = 257  # bytes: where a header of tar says what it is (POSIX.1-2017 and GNU)
SWITCHING, NO_CONTENT = 101, 204


async def carry(client: Channel, call: Call, context: Context, *, upgrade: bool, archive: bool) -> None:
    """`archive`: what the client has still to send is the body. Raises Refused before anything is answered; OSError."""
    engine = Channel(h11.CLIENT, await context.upstream.connect())
    try:
        body = b"" if call.body is None else msgspec.json.encode(call.body)
        await engine.send(_request(call, context, len(body), upgrade=upgrade and call.hijack, archive=archive))
        if archive:  # which is refused, or not, while it comes
            async with while_sending(_send_archive(client, engine, call.archive)):
                answer = await _answer(engine)
        else:
            await engine.send(h11.Data(body), h11.EndOfMessage())
            answer = await _answer(engine)
        kind = Headers(answer.headers).get("Content-Type")
        if call.hijack and (answer.status_code == SWITCHING or kind in RAW_STREAMS):
            await _tunnel(client, engine, answer.status_code, kind)
        elif answer.status_code >= BAD_REQUEST:
            await send(client, await _refusal(engine, answer.status_code, context), method=call.method)
        else:
            passing = _pass_on(client, engine, answer, call)  # it may never end, and asyncio's streams tell nobody
            await cut_off_if(lambda: client.is_gone, passing, "the client has gone", looks=GONE_WITHIN)
    except Malformed as error:
        raise ConnectionAbortedError(str(error)) from error
    finally:
        engine.abort()


def _request(call: Call, context: Context, length: int, *, upgrade: bool, archive: bool) -> h11.Request:
    headers = [("Host", HOST), ("Connection", "Upgrade, close" if upgrade else "close")]
    if upgrade:
        headers.append(("Upgrade", "tcp"))
    if archive:
        headers += [("Content-Type", "application/x-tar"), ("Transfer-Encoding", "chunked")]
    elif call.method in ("POST", "PUT"):
        headers += [("Content-Length", str(length))] + ([("Content-Type", "application/json")] if length else [])
    if call.registry_auth:
        headers.append(("X-Registry-Auth", call.registry_auth))
    return h11.Request(method=call.method, target=context.upstream.target(call.path, call.query), headers=headers)


async def _send_archive(client: Channel, engine: Channel, through: Archive | None) -> None:
    try:
        await client.send_continue()
        async with contextlib.aclosing(client.content()) as content:
            await engine.send_chunks((plain if through is None else through)(content))
        await engine.send(h11.EndOfMessage())
    except (OSError, Refused, Malformed):
        engine.abort()  # ends the wait for an answer
        raise


async def plain(chunks: Pieces) -> Pieces:
    """Compressed ones the Engine would have unpacked by programs of its own, with root's rights (CVE-2026-41567).

    It looks at the first bytes, in however many chunks they come. Raises Refused.
    """
    beginning = b""
    async for chunk in chunks:
        beginning += chunk
        if len(beginning) >= BLOCK:
            break
    if beginning.startswith(COMPRESSED):
        raise Refused(BAD_REQUEST, "the archive is compressed: send it as it is")
    if any(beginning[:BLOCK]) and not beginning.startswith(b"ustar", USTAR_AT):
        raise Refused(BAD_REQUEST, "the archive is not of tar's formats ustar, pax or GNU")
    yield beginning
    async for chunk in chunks:
        yield chunk


async def _answer(engine: Channel) -> h11.Response | h11.InformationalResponse:
    while True:
        event = await engine.receive()
        if isinstance(event, h11.Response):
            return event
        if isinstance(event, h11.InformationalResponse):
            if event.status_code == SWITCHING:
                return event
            continue
        raise Refused(BAD_GATEWAY, "the Engine behind this socket has not answered")


async def _refusal(engine: Channel, status: int, context: Context) -> Document:
    content = b"".join([bytes(chunk) async for chunk in engine.content()])[:LONGEST_REFUSAL]
    try:
        message = str(msgspec.json.decode(content)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        message = f"the Engine answered with status {status}"
    refused = context.refused(status, message)
    return Document({"message": refused.message}, status=refused.status)


async def _pass_on(
    client: Channel, engine: Channel, answer: h11.Response | h11.InformationalResponse, call: Call
) -> None:
    kept = [(name, value) for name, value in answer.headers if name.decode("latin-1").lower() in PASSED_HEADERS]
    is_ours = call.line is not None or call.answer is not None
    if not is_ours and client.takes_chunks and Headers(answer.headers).get("Transfer-Encoding") == "chunked":
        # The chunks as they come. Both connections end with them.
        from_engine, source = engine.leave()
        _, (_, client_writer) = client.leave()
        lines = [b"HTTP/1.1 %d OK" % answer.status_code, *(b"%s: %s" % pair for pair in kept)]
        lines += [b"Transfer-Encoding: chunked", b"Connection: close", b"", from_engine]
        client_writer.write(b"\r\n".join(lines))
        await splice(source, client_writer, gathers=GATHERED)
        return
    if client.is_last:
        kept.append((b"Connection", b"close"))
    if not is_ours:
        kept += [(name, value) for name, value in answer.headers if name.lower() == b"content-length"]
    await client.send(h11.Response(status_code=answer.status_code, headers=kept))
    try:
        async with contextlib.aclosing(engine.content()) as content:
            seen: Pieces = content
            if call.line is not None:
                seen = documents(content, call.line)
            elif call.answer is not None:
                seen = call.answer(content)
            async for chunk in seen:
                await client.send_content(chunk)
    except Refused as error:
        raise ConnectionAbortedError(f"the Engine's answer: {error.message}") from error
    await client.send(h11.EndOfMessage())


async def documents(chunks: Pieces, line: Line) -> AsyncIterator[bytes]:
    """One document a line, each looked at; one that is too long is left out: others may have made it so.

    Raises ConnectionAbortedError for what is none.
    """
    lines = LineSplitter(LONGEST_LINE, skips_long=True)
    async for chunk in chunks:
        for text in lines.feed(bytes(chunk)):
            if seen := _seen(text, line):
                yield seen
    if seen := _seen(lines.rest(), line):
        yield seen


def _seen(text: bytes, line: Line) -> bytes:
    if not text.strip():
        return b""
    try:
        found = line(msgspec.json.decode(text))
    except (msgspec.DecodeError, AttributeError, TypeError) as error:
        raise ConnectionAbortedError("the Engine's answer is no JSON") from error
    return b"" if found is None else msgspec.json.encode(found) + b"\n"


async def cut_off_if(is_over: Callable[[], bool], work: Coroutine[None, None, None], why: str, *, looks: float) -> None:
    """Raises what `work` does, and ConnectionAbortedError once `is_over`, which is asked every `looks` seconds."""
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait({task}, timeout=looks))[0]:
            if is_over():
                raise ConnectionAbortedError(why)
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _tunnel(client: Channel, engine: Channel, status: int, kind: str) -> None:
    """From now on the two connections carry the container's input and output."""
    from_client, client_end = client.leave()
    from_engine, engine_end = engine.leave()
    (_, client_writer), (_, engine_writer) = client_end, engine_end
    first = "101 UPGRADED" if status == SWITCHING else "200 OK"
    upgraded = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if status == SWITCHING else ""
    client_writer.write(f"HTTP/1.1 {first}\r\nContent-Type: {kind}\r\n{upgraded}\r\n".encode("latin-1") + from_engine)
    engine_writer.write(from_client)
    await client_writer.drain()
    inward = asyncio.create_task(splice(client_end, engine_writer))
    outward = asyncio.create_task(splice(engine_end, client_writer))
    try:
        await outward  # the container's output has ended: whatever is still typed goes nowhere
    finally:
        inward.cancel()
        outward.cancel()
        await asyncio.gather(inward, outward, return_exceptions=True)


async def send(client: Channel, document: Document, *, method: str = "GET", closes: bool = False) -> None:
    """An answer of our own. Raises ConnectionError."""
    headers, body = [*document.headers], b""
    if document.status != NO_CONTENT:
        is_text = isinstance(document.value, str)
        body = str(document.value).encode() if is_text else msgspec.json.encode(document.value)
        headers.append(("Content-Length", str(len(body))))
        headers.append(("Content-Type", "text/plain; charset=utf-8" if is_text else "application/json"))
    if closes or client.is_last:
        headers.append(("Connection", "close"))
    data = h11.Data(b"" if method == "HEAD" else body)
    head = h11.Response(status_code=document.status, headers=headers, reason=_reason(document.status))
    await client.send(head, data, h11.EndOfMessage())


def _reason(status: int) -> str:
    """As the Engine says it: docker-py prints it."""
    with contextlib.suppress(ValueError):
        return HTTPStatus(status).phrase
    return ""
