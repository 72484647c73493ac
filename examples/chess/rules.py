"""What a match is made of: positions as lists of moves, the end of the game, and its PGN."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final

import chess
import chess.pgn

MAX_PLIES: Final = 160  # then the game is adjudicated as a draw


def board_after(moves: Sequence[str]) -> chess.Board:
    """Return the board after `moves` (UCI, from the starting position)."""
    board = chess.Board()
    for move in moves:
        board.push_uci(move)
    return board


def verdict(board: chess.Board, max_plies: int = MAX_PLIES) -> tuple[str, str] | None:
    """Return (result, reason) if the game is over, else None."""
    outcome = board.outcome()
    if outcome is not None:
        return outcome.result(), outcome.termination.name.lower().replace("_", " ")
    if board.is_repetition(3):
        return "1/2-1/2", "threefold repetition"
    if board.is_fifty_moves():
        return "1/2-1/2", "fifty moves"
    if board.ply() >= max_plies:
        return "1/2-1/2", f"adjudicated after {max_plies} plies"
    return None


def to_pgn(board: chess.Board, *, white: str, black: str, played: date, max_plies: int) -> str:
    """Return the game on `board` as PGN, with its result in the headers."""
    game = chess.pgn.Game.from_board(board)
    result, reason = verdict(board, max_plies) or ("*", "unfinished")
    game.headers.update(
        Event="Fluvial chess match",
        Site="an instance near you",
        Date=f"{played:%Y.%m.%d}",
        Round="1",
        White=white,
        Black=black,
        Result=result,
        Termination=reason,
    )
    return str(game)
