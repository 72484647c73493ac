"""A chess match between two engines, as a durable workflow.

Every move is a step: its result is in the event log before the other side thinks. Kill anything you
like in the middle of a game; it goes on with the next move.
"""

from __future__ import annotations

import chess

from engines import ENGINES
from fluvial import now, sleep, step, workflow
from rules import MAX_PLIES, board_after, to_pgn, verdict
from web import make_app


@step(retries=3, timeout="30s")
def tactician(moves: list[str], seed: int) -> str:
    """Return the tactician's move (UCI) in the position after `moves`."""
    return ENGINES["tactician"](board_after(moves), seed).uci()


@step(retries=3, timeout="30s")
def positional(moves: list[str], seed: int) -> str:
    """Return the positional player's move (UCI) in the position after `moves`."""
    return ENGINES["positional"](board_after(moves), seed).uci()


PLAYERS = {"tactician": tactician, "positional": positional}


@workflow
async def match(
    white: str = "tactician",
    black: str = "positional",
    seed: int = 0,
    max_plies: int = MAX_PLIES,
    pause: float = 0.0,
) -> str:
    """Play one game and return it as PGN. The board lives here and nowhere else.

    `pause` is how many seconds to wait between moves, for those who watch.
    """
    board = chess.Board()
    played = now().date()
    while verdict(board, max_plies) is None:
        player = PLAYERS[white if board.turn else black]
        board.push_uci(await player([move.uci() for move in board.move_stack], seed))
        if pause:
            await sleep(pause)
    return to_pgn(board, white=white, black=black, played=played, max_plies=max_plies)


app = make_app(match, players=sorted(PLAYERS))
