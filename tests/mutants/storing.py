"""Mutants of the stores: fencing, atomic entries, and what is accepted once."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

_ROOM: Final = "queue/fluvial_queue"
_COMMITS: Final = "tests/contract/test_commits.py"
_LEASES: Final = "tests/contract/test_leases.py"
_SENDS: Final = "tests/contract/test_sends.py"
_RUNS: Final = "tests/contract/test_runs.py"
_TIMERS: Final = "tests/contract/test_timers.py"
_EFFECTS: Final = "tests/contract/test_effects.py"
_SINGLETONS: Final = "tests/contract/test_singletons.py"

STORING: Final = (
    Mutant(
        "an old epoch is current",
        f"{_ROOM}/memory/state.py",
        "(lease.epoch, lease.nonce) == (self.epoch, self.nonce) and now_ms < self.until_ms",
        "now_ms < self.until_ms",
        "A former owner is fenced.",
        (_COMMITS, _LEASES),
    ),
    Mutant(
        "a lease that has run out is current",
        f"{_ROOM}/memory/state.py",
        "(lease.epoch, lease.nonce) == (self.epoch, self.nonce) and now_ms < self.until_ms",
        "(lease.epoch, lease.nonce) == (self.epoch, self.nonce)",
        "A lease ends by the store's clock, though nobody took the partition.",
        (_LEASES,),
    ),
    Mutant(
        "an entry fits any log",
        f"{_ROOM}/memory/state.py",
        "    if len(run.log) != entry.base:",
        "    if len(run.log) < entry.base:",
        "An entry is applied onto the log that it was made for.",
        (_COMMITS,),
    ),
    Mutant(
        "a message is handled twice",
        f"{_ROOM}/memory/state.py",
        "all(message in run.messages or message in run.effects for message in entry.handled)",
        "(run.messages or run.effects)",
        "An entry that was applied is refused when it is repeated.",
        (_COMMITS,),
    ),
    Mutant(
        "entries follow a refused one",
        f"{_ROOM}/memory/store.py",
        "            refused[entry.run_id] = answer\n",
        "",
        "Later entries of a run are refused with the first.",
        (_COMMITS,),
    ),
    Mutant(
        "a resume id is accepted twice",
        f"{_ROOM}/memory/store.py",
        '            run.resumes.add((token or "", resume_id))',
        '            run.resumes.discard((token or "", resume_id))',
        "A request that is repeated is one request.",
        (_SENDS,),
    ),
    Mutant(
        "a timer fires early",
        f"{_ROOM}/memory/store.py",
        "for body, t in state.timers.items() if t[0] <= now_ms)",
        "for body, t in state.timers.items() if t[0] <= now_ms + 1000)",
        "A timer never fires before it is due.",
        (_TIMERS,),
    ),
    Mutant(
        "epochs stand still",
        f"{_ROOM}/memory/store.py",
        "        state.epoch += 1\n",
        "        state.epoch = max(state.epoch, 1)\n",
        "Every acquire of a partition has an epoch of its own.",
        (_LEASES,),
    ),
    Mutant(
        "Valkey: an old epoch is current",
        f"{_ROOM}/redis/scripts/prelude.lua",
        "return held[1] == epoch and held[2] == nonce and tonumber(held[3]) > now",
        "return tonumber(held[3]) > now",
        "A former owner is fenced.",
        (_COMMITS, _LEASES),
    ),
    Mutant(
        "Valkey: an entry fits any log",
        f"{_ROOM}/redis/scripts/commit.lua",
        "  if call('LLEN', log) ~= entry[4] then",
        "  if call('LLEN', log) < entry[4] then",
        "An entry is applied onto the log that it was made for.",
        (_COMMITS,),
    ),
    Mutant(
        "Valkey: a message is handled twice",
        f"{_ROOM}/redis/scripts/commit.lua",
        "      if call('HEXISTS', run, '!' .. handled[i]) == 0 then",
        "      if false then",
        "An entry that was applied is refused when it is repeated.",
        (_COMMITS,),
    ),
    Mutant(
        "Valkey: entries follow a refused one",
        f"{_ROOM}/redis/scripts/commit.lua",
        "        refused[entry[1]] = answer",
        "        refused[entry] = answer",
        "Later entries of a run are refused with the first.",
        (_COMMITS,),
    ),
    Mutant(
        "Valkey: a run's end forgets its effects",
        f"{_ROOM}/redis/scripts/commit.lua",
        "  if effects == 0 then\n    retain(run, log, streams)\n  end",
        "  retain(run, log, streams)",
        "The retention begins when the last effect was carried out.",
        (_EFFECTS,),
    ),
    Mutant(
        "Valkey: a resume id is accepted twice",
        f"{_ROOM}/redis/scripts/send.lua",
        "  call('SADD', KEYS[3], resume)",
        "  call('SREM', KEYS[3], resume)",
        "A request that is repeated is one request.",
        (_SENDS,),
    ),
    Mutant(
        "Valkey: a timer fires early",
        f"{_ROOM}/redis/scripts/fire.lua",
        "  if due and tonumber(due) <= now then",
        "  if due then",
        "A timer that was set anew meanwhile does not fire before it is due.",
        (
            "tests/integration/queue/test_faults.py::"
            "test_timer_that_is_set_anew_while_it_is_moved_does_not_fire_early",
        ),
    ),
    Mutant(
        "Valkey: a key starts two runs",
        f"{_ROOM}/redis/scripts/start.lua",
        "    return 'conflict'",
        "    return 'duplicate'",
        "A key that was used for another input is a conflict.",
        (_RUNS,),
    ),
    Mutant(
        "a claim is void before its run exists",
        f"{_ROOM}/singletons.py",
        "        return now_ms > claimed_ms + GRACE_MS",
        "        return True",
        "Between the claim and the start nobody else becomes the singleton.",
        (_SINGLETONS,),
    ),
    Mutant(
        "a singleton that goes on loses its claim",
        f"{_ROOM}/singletons.py",
        "    status = await board.status_of(await _newest(board, holder_of(claim)))",
        "    status = await board.status_of(holder_of(claim))",
        "A singleton keeps its claim when it goes on as a new run.",
        (_SINGLETONS,),
    ),
    Mutant(
        "a singleton is started late",
        f"{_ROOM}/singletons.py",
        "return SingletonClaim(run_id, now_ms + START_WITHIN_MS)",
        "return SingletonClaim(run_id, now_ms + 10 * GRACE_MS)",
        "A start whose claim may be void by now is refused.",
        (_SINGLETONS,),
    ),
)
