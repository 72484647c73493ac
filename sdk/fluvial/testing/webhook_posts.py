"""Requests to webhooks of runs under test: what the data plane does with one, in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote, urlsplit

from fluvial.codec import decode, encode
from fluvial.errors import HookNotFoundError, RunNotFoundError
from fluvial.events import Event, EventType, decode_event
from fluvial.hook_operations import CLOSED, answer_id
from fluvial.hook_tokens import is_secret, run_of_token
from fluvial.schema_checks import mismatch
from fluvial.unguarded import random_bytes
from fluvial.webhook_answers import WebhookAnswer
from fluvial.webhook_checks import VerifyRequest, verdict
from fluvial.webhook_requests import HOOKS_PATH, WebhookRequest, webhook_url
from fluvial.webhook_signatures import ID, SIGNATURE, TIMESTAMP, message_id, signature

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys
    from fluvial.testing.engines import Engine

_WAIT_MS: Final = 1  # wait at all: virtual time has no other end than the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A request to send to a webhook."""

    url: str
    method: str
    headers: Mapping[str, str]
    body: bytes
    secret: str | None


class WebhookPosts:
    """Sends requests to the webhooks of an environment's runs."""

    def __init__(self, engine: Engine, keys: AppKeys) -> None:
        self._engine = engine
        self._keys = keys

    def urls(self, run_id: str) -> list[str]:
        """Return the URLs of a run's open webhooks."""
        openings = (self._opening(run_id, token) for token in self._engine.open_hooks(run_id))
        return [
            webhook_url(str(event.meta["webhook"]["app_url"]), str(event.meta["token"]))
            for event in openings
            if event is not None
        ]

    async def send(self, post: Post) -> WebhookAnswer:
        """Send a request and return what the sender is told."""
        parts = urlsplit(post.url)
        token, slash, rest = parts.path.removeprefix(HOOKS_PATH).partition("/")
        run_id = run_of_token(token) if is_secret(token) else None
        opening = None if run_id is None else self._opening(run_id, token)
        if run_id is None or opening is None:
            return _refusal(410 if run_id and self._was_open(run_id, token) else 404)
        request = self._request(post, unquote(slash + rest), parts.query)
        return await self._deliver(run_id, opening, request)

    async def _deliver(self, run_id: str, opening: Event, request: WebhookRequest) -> WebhookAnswer:
        token, about = str(opening.meta["token"]), cast("dict[str, Any]", opening.meta["webhook"])
        sealed = self._keys.for_run(run_id).seal(encode(request), "hook", token)
        if about["signed"]:
            asked = VerifyRequest(
                run_id=run_id,
                app=self._keys.app,
                token=token,
                opening=opening.encode(),
                request=sealed,
            )
            if (wrong := verdict(asked, self._keys)) is not None:
                return _refusal(401, wrong)
        if (wrong := _misfit(request.body, opening.meta.get("schema"))) is not None:
            return _refusal(422, wrong)
        arguments = {"run_id": run_id, "token": token, "resume_id": request.id}
        resume = {**arguments, "ask": about["respond"]}
        try:
            await self._engine.platform.call("resume", resume, sealed)
            return await self._answer(opening, arguments) if about["respond"] else _TAKEN
        except (HookNotFoundError, RunNotFoundError):
            return _refusal(410)

    async def _answer(self, opening: Event, arguments: dict[str, Any]) -> WebhookAnswer:
        wait = {**arguments, "start": 0, "wait_ms": _WAIT_MS}
        found, body = await self._engine.platform.call("hook_answer", wait)
        if found["outcome"] != "answered":
            return _refusal(502, "the run has ended without an answer")
        event = decode_event(body)
        place = answer_id(opening.id, str(arguments["resume_id"]))
        run_keys = self._keys.for_run(str(arguments["run_id"]))
        answer = decode(run_keys.open(event.payload, "hook_answer", place))
        if event.meta["ok"]:
            return WebhookAnswer.from_plain(answer)
        return _refusal(410 if event.meta.get("why") == CLOSED else 422, str(answer))

    def _request(self, post: Post, path: str, query: str) -> WebhookRequest:
        now_ms = self._engine.now_ms
        headers = [(k.lower().encode(), v.encode("latin-1")) for k, v in post.headers.items()]
        made = random_bytes(16).hex()
        if post.secret is not None:
            message, seconds = message_id(headers) or made, now_ms // 1000
            signed = signature(post.secret, message, seconds, post.body)
            headers = [pair for pair in headers if pair[0] != ID]
            headers += [
                (ID, message.encode()),
                (TIMESTAMP, str(seconds).encode()),
                (SIGNATURE, signed.encode()),
            ]
        return WebhookRequest(
            id=message_id(headers) or made,
            method=post.method,
            path=path,
            query_string=query,
            raw_headers=headers,
            body=post.body,
            received_ms=now_ms,
        )

    def _opening(self, run_id: str, token: str) -> Event | None:
        if run_id not in self._engine.run_ids() or token not in self._engine.open_hooks(run_id):
            return None
        openings = [e for e in self._openings(run_id, token) if "webhook" in e.meta]
        return openings[-1] if openings else None

    def _was_open(self, run_id: str, token: str) -> bool:
        return run_id in self._engine.run_ids() and any(self._openings(run_id, token))

    def _openings(self, run_id: str, token: str) -> list[Event]:
        events = self._engine.events(run_id)
        kind = EventType.HOOK_OPENED
        return [e for e in events if e.type is kind and e.meta.get("token") == token]


def _misfit(body: bytes, schema: Any) -> str | None:
    if schema is None:
        return None
    try:
        wrong = mismatch(json.loads(body), schema)
    except (ValueError, RecursionError):
        return "the body is not JSON"
    return None if wrong is None else str(wrong)


def _refusal(status: int, detail: str = "") -> WebhookAnswer:
    return WebhookAnswer.of(
        {"detail": detail}, status, {"content-type": "application/problem+json"}
    )


_TAKEN: Final = WebhookAnswer(202, (), b"")
