"""`/stream`: a websocket; pictures in, a view of the newest of them out, as fast as the net can."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from service.access import SUBPROTOCOL
from service.errors import BodyTypeError, PictureMissing, SegserveError, UpgradeRequired
from service.gate import Deadline, Gate
from service.lifecycle import Lifecycle
from service.problems import INTERNAL, internal_error, respond, status_of
from service.repository import Repository
from service.routes.dependencies import GateHere, LifecycleHere, PlacesHere, RepositoryHere, SettingsHere, TelemetryHere
from service.routes.documented import problems
from service.routes.query import Once, StreamQuery
from service.settings import Settings
from service.streaming import Frame, Newest
from service.task import Answer, Segment
from service.telemetry import Telemetry

logger = logging.getLogger(__name__)

router = APIRouter(tags=["segment"])

PATH = "/stream"

GOING_AWAY, SERVICE_RESTART = 1001, 1012
"""Codes that a websocket is closed with."""


@router.get(
    PATH,
    dependencies=[Once],
    status_code=426,
    response_class=Response,
    responses=problems(400, 404, 422, 426, 429, 503),
)
@router.head(PATH, dependencies=[Once], include_in_schema=False)
async def stream(query: Annotated[StreamQuery, Query()], repository: RepositoryHere, places: PlacesHere) -> Response:
    """Segment a live camera: this is a websocket, and a plain request is told so, or why it would be refused.

    Each binary message that you send is one picture file. The newest is answered with two messages: a text (JSON, with
    `frame`, `dropped`, `width`, `height`, `view`, `media_type` and `timing`) and a binary one, the view.
    The project's docs/stream.md has the details.
    """
    check(query, repository)
    with places.place():
        pass
    raise UpgradeRequired("this is a websocket: connect to it with ws:// or wss://, as docs/stream.md shows")


@router.websocket(PATH, dependencies=[Once])
async def live(
    socket: WebSocket,
    query: Annotated[StreamQuery, Query()],
    settings: SettingsHere,
    repository: RepositoryHere,
    gate: GateHere,
    lifecycle: LifecycleHere,
    telemetry: TelemetryHere,
    places: PlacesHere,
) -> None:
    """A stream, from its handshake to its end."""
    check(query, repository)
    with places.place():
        await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None)
        await _Stream(socket, query, settings, repository, gate, telemetry).run(lifecycle)


def check(query: StreamQuery, repository: Repository) -> None:
    """Raise what no frame could be answered with."""
    query.options(query.output, None, repository.get(query.model, query.version).snapshot)


@router.websocket("/{path:path}")
async def nowhere() -> None:
    """Any other websocket."""
    raise HTTPException(404)


@dataclass(frozen=True)
class _Closing:
    """Why the server ends a stream."""

    code: int
    reason: str


class _Stream:
    """One stream: it reads all the time, keeps the newest frame, and works on one after the other."""

    def __init__(
        self,
        socket: WebSocket,
        query: StreamQuery,
        settings: Settings,
        repository: Repository,
        gate: Gate,
        telemetry: Telemetry,
    ) -> None:
        self._socket = socket
        self._query = query
        self._settings = settings
        self._repository = repository
        self._gate = gate
        self._telemetry = telemetry
        self._newest = Newest(lambda frame: telemetry.frame(frame.size))
        self._clock = asyncio.get_running_loop().time
        self._active = self._clock()
        self._busy = False

    async def run(self, lifecycle: Lifecycle) -> None:
        """To its end: the client goes away or sends nothing, or the server is about to end."""
        reading, working = asyncio.create_task(self._read()), asyncio.create_task(self._work())
        ending = asyncio.create_task(lifecycle.last_call())
        try:
            await asyncio.wait({reading, working, ending}, return_when=asyncio.FIRST_COMPLETED)
            self._newest.close()
            # Where it is the server that ends, the frame in hand is answered first.
            await asyncio.wait({reading, working}, return_when=asyncio.FIRST_COMPLETED)
            with suppress(WebSocketDisconnect):
                closing = (reading if reading.done() else working).result()
                if closing is not None:
                    await self._socket.close(closing.code, closing.reason)
        finally:
            self._newest.close()
            tasks = (reading, working, ending)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> _Closing | None:
        """Take in frames until the client is gone, or sends none."""
        idle = self._settings.stream_idle
        while self._busy or self._clock() < self._active + idle:
            end = max(self._active, self._clock() if self._busy else 0.0) + idle
            with suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    return None
                self._active = self._clock()
                self._take_in(message)
        return _Closing(GOING_AWAY, f"no frame for {idle:g} s")

    def _take_in(self, message: Message) -> None:
        with ExitStack() as room:
            self._newest.put(self._content(message, room), room.pop_all())

    def _content(self, message: Message, room: ExitStack) -> bytes | SegserveError:
        """A message's picture, which takes that room; or why there is none."""
        data = message.get("bytes")
        if data is None:
            return BodyTypeError("a text message holds no picture: send each as one binary message")
        if not data:
            return PictureMissing("the message is empty: send a picture file in each")
        try:
            room.enter_context(self._gate.room(len(data)))
        except SegserveError as error:
            return error
        return bytes(data)

    async def _work(self) -> _Closing:
        """Answer the newest frame, as long as there are any to come."""
        while frame := await self._newest.take():
            self._busy = True
            with frame.room:
                answer = await self._answer(frame)
            del frame
            for part in answer:
                await self._socket.send({"type": "websocket.send", **part})
            self._busy, self._active = False, self._clock()
        return _Closing(SERVICE_RESTART, "the server is about to end: connect again")

    async def _answer(self, frame: Frame) -> list[dict[str, str | bytes]]:
        """The messages that answer a frame; what went wrong with it is one of them."""
        counted = {"frame": frame.number, "dropped": frame.dropped}
        try:
            answer = await self._segment(frame)
        except Exception as error:
            refusal = _refusal(error)
            self._telemetry.frame(frame.size, code=refusal.get("code", INTERNAL))
            return [_text(counted | refusal)]
        self._telemetry.frame(frame.size, answer.work)
        return _messages(counted, answer, frame.submitted)

    async def _segment(self, frame: Frame) -> Answer:
        """What the model that serves by now sees. Raises a SegserveError."""
        if isinstance(frame.content, SegserveError):
            raise frame.content
        query, settings = self._query, self._settings
        model = self._repository.get(query.model, query.version)
        options = query.options(query.output, None, model.snapshot)
        seconds = min(query.timeout or settings.timeout, settings.max_timeout)
        task = Segment(
            frame.content, model, query.output, options, settings, submitted=frame.submitted, unstored="not requested"
        )
        return await self._gate.run(task, Deadline.after(seconds), task.cost)


def _refusal(error: Exception) -> dict[str, Any]:
    """A problem's members, and `retry_after` where an answer by HTTP has that as a header."""
    if isinstance(error, SegserveError) and status_of(type(error)) is not HTTPStatus.INTERNAL_SERVER_ERROR:
        problem = respond(PATH, error)
    else:
        logger.error("a frame of a stream failed", exc_info=error)
        problem = internal_error(PATH)
    members: dict[str, Any] = json.loads(bytes(problem.body))
    if "retry-after" in problem.headers:
        members["retry_after"] = int(problem.headers["retry-after"])
    return members


def _messages(counted: dict[str, int], answer: Answer, submitted: float) -> list[dict[str, str | bytes]]:
    """What is said of a frame that was worked on, and its view; a view in JSON is part of the former."""
    (picture,), body = answer.work.pictures, answer.body
    steps = {**answer.work.steps, "total": (perf_counter() - submitted) * 1e3}
    members = {
        **counted,
        "width": picture.width,
        "height": picture.height,
        "view": answer.work.view,
        "media_type": body.media_type,
        "timing": {step: round(milliseconds, 1) for step, milliseconds in steps.items()},
    }
    if body.media_type.endswith("json"):
        return [_text(members | {"body": json.loads(body.content)})]
    return [_text(members), {"bytes": body.content}]


def _text(members: dict[str, Any]) -> dict[str, str | bytes]:
    return {"text": json.dumps(members, ensure_ascii=False)}
