"""Mutants of attempts: how often, when again, and what ends a step."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

_SDK: Final = "sdk/fluvial"
_ATTEMPTS: Final = "tests/unit/fluvial/test_attempts.py"
_LIMITS: Final = "tests/unit/fluvial/test_step_limits.py"

ATTEMPTING: Final = (
    Mutant(
        "a retry too few",
        f"{_SDK}/verdicts.py",
        "    if request.spent > settings.retries:",
        "    if request.spent >= settings.retries:",
        "A step is repeated as often as it says.",
        (_ATTEMPTS,),
    ),
    Mutant(
        "a fatal error is tried again",
        f"{_SDK}/verdicts.py",
        "    if isinstance(error, FatalError):",
        "    if isinstance(error, FatalError) and reason == DEADLINE:",
        "A FatalError fails its step at once.",
        (_ATTEMPTS,),
    ),
    Mutant(
        "a step chooses no delay",
        f"{_SDK}/verdicts.py",
        "        delay_seconds = error.retry_after_seconds",
        "        delay_seconds = 1.0",
        "A RetryableError says when the next attempt comes.",
        (_ATTEMPTS,),
    ),
    Mutant(
        "a resumed step waits as if it had failed more often",
        f"{_SDK}/verdicts.py",
        "        delay_seconds = settings.backoff.delay_seconds(request.spent, whose)",
        "        delay_seconds = settings.backoff.delay_seconds(request.attempt, whose)",
        "The waits of a resumed step begin anew.",
        (_LIMITS,),
    ),
    Mutant(
        "an attempt is planned beyond the deadline",
        f"{_SDK}/verdicts.py",
        "    if request.expires_ms and at_ms + delay_ms >= request.expires_ms:",
        "    if request.expires_ms and at_ms >= request.expires_ms:",
        "A step whose next attempt would come too late ends now.",
        (_LIMITS,),
    ),
    Mutant(
        "a used up step fails instead of pausing",
        f"{_SDK}/verdicts.py",
        '        is_paused = settings.exhausted == "pause"',
        '        is_paused = settings.exhausted == "fail" and False',
        "A step that asks for it pauses its run when its attempts are used up.",
        (_LIMITS,),
    ),
    Mutant(
        "a back-off does not grow",
        f"{_SDK}/step_settings.py",
        "self.factor ** min(attempt - 1, 60)",
        "self.factor ** min(attempt - 1, 0)",
        "Each wait is longer than the one before.",
        (_ATTEMPTS,),
    ),
    Mutant(
        "a back-off has no bound",
        f"{_SDK}/step_settings.py",
        "        full = min(most, to_seconds(self.first)",
        "        full = max(most, to_seconds(self.first)",
        "No wait is longer than the back-off says.",
        (_ATTEMPTS,),
    ),
    Mutant(
        "all steps come back together",
        f"{_SDK}/step_settings.py",
        '        digest = hashlib.sha256(f"{whose} {attempt}".encode()).digest()',
        '        digest = hashlib.sha256(f"{attempt}".encode()).digest()',
        "Steps that failed together wait for different times.",
        (_ATTEMPTS,),
    ),
    Mutant(
        "a step at most once is tried again",
        f"{_SDK}/step_settings.py",
        "        return 0 if at_most_once else DEFAULT_RETRIES",
        "        return DEFAULT_RETRIES",
        "A step that runs at most once is not retried unless it says so.",
        (_LIMITS,),
    ),
    Mutant(
        "the owner is not told that once is enough",
        f"{_SDK}/step_settings.py",
        '            rules["once"] = True',
        '            rules["once"] = False',
        "The owner of a run knows which steps run at most once.",
        (
            "tests/integration/test_step_limits.py::"
            "test_an_at_most_once_step_that_was_cut_off_is_not_repeated",
        ),
    ),
    Mutant(
        "an attempt starts after the deadline",
        f"{_SDK}/attempts.py",
        "        if request.expires_ms and request.now_ms >= request.expires_ms:",
        "        if request.expires_ms and request.now_ms >= 2 * request.expires_ms:",
        "An attempt that comes after its step's deadline does not start.",
        (_LIMITS,),
    ),
    Mutant(
        "a cancellation is a failure",
        f"{_SDK}/attempts.py",
        "            if task is not None and task.cancelling():\n                raise",
        "            if task is None:\n                raise",
        "An attempt that its owner cancels has not failed.",
        (_ATTEMPTS,),
    ),
    Mutant(
        "an attempt sees no error before it",
        f"{_SDK}/attempts.py",
        'keys.open(history.error, "step_error", request.id, request.attempt - 1)',
        'keys.open(history.error, "step_error", request.id, request.attempt)',
        "An attempt knows what the one before failed with.",
        (_ATTEMPTS,),
    ),
    Mutant(
        "each attempt has a key of its own",
        f"{_SDK}/attempt_scope.py",
        '        return f"{request.run_id}-{request.id}-{next(self._count)}"',
        '        return f"{request.run_id}-{request.attempt}-{next(self._count)}"',
        "An idempotency key is the same in every attempt of its step.",
        (
            "tests/integration/test_idempotent_requests.py::"
            "test_requests_of_a_sync_step_have_keys_that_all_attempts_share",
        ),
    ),
)
