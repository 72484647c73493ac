"""A match ends by the rules, and its PGN reads back."""

from __future__ import annotations

import io
from datetime import date

import chess
import chess.pgn
import pytest

from rules import board_after, to_pgn, verdict

FOOLS_MATE = ["f2f3", "e7e5", "g2g4", "d8h4"]
SHUFFLE = ["g1f3", "g8f6", "f3g1", "f6g8"]


@pytest.mark.parametrize(
    ("fen", "expected"),
    [
        ("7k/5Q2/6K1/8/8/8/8/8 b - - 0 1", ("1/2-1/2", "stalemate")),
        ("7k/8/6K1/8/8/8/8/8 w - - 0 1", ("1/2-1/2", "insufficient material")),
        ("7k/8/6K1/8/8/8/8/R7 w - - 100 90", ("1/2-1/2", "fifty moves")),
        ("R5k1/5ppp/8/8/8/8/8/6K1 b - - 0 1", ("1-0", "checkmate")),
    ],
)
def test_verdict_by_position(fen: str, expected: tuple[str, str]) -> None:
    assert verdict(chess.Board(fen), max_plies=1000) == expected


def test_third_repetition_is_a_draw() -> None:
    assert verdict(board_after(SHUFFLE)) is None
    assert verdict(board_after(SHUFFLE * 2)) == ("1/2-1/2", "threefold repetition")


def test_long_games_are_adjudicated() -> None:
    assert verdict(board_after(SHUFFLE), max_plies=4) == (
        "1/2-1/2",
        "adjudicated after 4 plies",
    )


def test_pgn_reads_back_with_its_result() -> None:
    pgn = to_pgn(
        board_after(FOOLS_MATE), white="a", black="b", played=date(2025, 3, 1), max_plies=160
    )

    game = chess.pgn.read_game(io.StringIO(pgn))

    assert game is not None
    assert not game.errors
    assert game.headers["Result"] == "0-1"
    assert game.headers["Termination"] == "checkmate"
    assert game.headers["Date"] == "2025.03.01"
    assert [move.uci() for move in game.mainline_moves()] == FOOLS_MATE


def test_pgn_of_a_game_under_way_has_no_result() -> None:
    pgn = to_pgn(board_after(SHUFFLE), white="a", black="b", played=date(2025, 3, 1), max_plies=160)

    assert '[Result "*"]' in pgn
