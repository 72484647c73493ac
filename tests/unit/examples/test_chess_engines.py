"""The engines play legal, sensible and repeatable chess."""

from __future__ import annotations

import chess
import pytest

from engines import ENGINES
from engines.material import VALUES
from engines.mates import forced_mate

engines = pytest.mark.parametrize("engine", sorted(ENGINES))

MATE_IN_ONE = {
    "back rank": ("6k1/5ppp/8/8/8/8/5PPP/3R2K1 w - - 0 1", {"d1d8"}),
    "scholar": ("r1bqkb1r/pppp1ppp/2n2n2/4p2Q/2B1P3/8/PPPP1PPP/RNB1K1NR w KQkq - 4 4", {"h5f7"}),
    "smothered": ("6rk/6pp/8/6N1/8/8/6PP/6K1 w - - 0 1", {"g5f7"}),
    "black to move": ("4r1k1/8/8/8/8/8/5PPP/6K1 b - - 0 1", {"e8e1"}),
}
MATE_IN_TWO = {
    "two rooks": "8/7k/R7/8/8/8/8/1R5K w - - 0 1",
    "decoy on the back rank": "2r3k1/5ppp/8/8/8/8/4QPPP/4R1K1 w - - 0 1",
    "legal": "r2qkb1r/pp2nppp/3p4/2pNN1B1/2BnP3/3P4/PPP2PPP/R2bK2R w KQkq - 1 1",
}
HANGING_QUEEN = {
    "queen attacked by a pawn": "rnb1kbnr/pppp1ppp/8/4p1q1/5P2/8/PPPPP1PP/RNBQKBNR b KQkq - 0 2",
    "queen attacked by a knight": "r1bqkb1r/pppp1ppp/2n2n2/4p1Q1/8/2NP4/PPP2PPP/R1B1KBNR b - - 0 5",
    "free queen on d5": "rnb1kbnr/ppp1pppp/8/3q4/8/2N5/PPPP1PPP/R1BQKBNR w KQkq - 0 3",
}


@engines
@pytest.mark.parametrize("position", MATE_IN_ONE)
def test_engine_mates_in_one(engine: str, position: str) -> None:
    fen, mates = MATE_IN_ONE[position]

    move = ENGINES[engine](chess.Board(fen), 0)

    assert move.uci() in mates


@engines
@pytest.mark.parametrize("position", MATE_IN_TWO)
def test_engine_mates_in_two_against_any_reply(engine: str, position: str) -> None:
    board = chess.Board(MATE_IN_TWO[position])

    board.push(ENGINES[engine](board, 0))

    for reply in list(board.legal_moves):
        board.push(reply)
        board.push(ENGINES[engine](board, 0))
        assert board.is_checkmate()
        board.pop()
        board.pop()


@engines
@pytest.mark.parametrize("position", HANGING_QUEEN)
def test_engine_wins_or_keeps_its_material(engine: str, position: str) -> None:
    """Whatever captures follow at once, the engine has what it could have had, or more."""
    board = chess.Board(HANGING_QUEEN[position])
    attainable = _after_captures(board)

    board.push(ENGINES[engine](board, 0))

    assert -_after_captures(board) >= attainable - VALUES[chess.PAWN]


@engines
@pytest.mark.parametrize("seed", range(2))
def test_engine_never_gives_its_queen_away_in_a_game(engine: str, seed: int) -> None:
    board = chess.Board()
    while board.ply() < 40 and not board.is_game_over():
        attainable = _after_captures(board)
        board.push(ENGINES[engine](board, seed))
        assert -_after_captures(board) > attainable - 640, board.peek()


@engines
def test_engine_repeats_its_move_for_the_same_seed(engine: str) -> None:
    board = chess.Board("r1bqkbnr/pppp1ppp/2n5/4p3/4P3/5N2/PPPP1PPP/RNBQKB1R w KQkq - 2 3")

    moves = {ENGINES[engine](board, 7) for _ in range(3)}

    assert len(moves) == 1


@engines
def test_engine_leaves_the_board_as_it_was(engine: str) -> None:
    board = chess.Board()
    board.push_san("e4")
    untouched = board.copy()

    ENGINES[engine](board, 0)

    assert board == untouched
    assert board.move_stack == untouched.move_stack


@engines
def test_engine_avoids_stalemate_when_it_is_winning(engine: str) -> None:
    board = chess.Board("7k/8/6K1/8/8/8/8/5Q2 w - - 0 1")

    board.push(ENGINES[engine](board, 0))

    assert not board.is_stalemate()


def test_engines_disagree() -> None:
    boards = [chess.Board(fen) for fen in HANGING_QUEEN.values()] + [chess.Board()]

    moves = {engine: [choose(board, 0) for board in boards] for engine, choose in ENGINES.items()}

    assert moves["tactician"] != moves["positional"]


def test_no_forced_mate_in_the_starting_position() -> None:
    assert forced_mate(chess.Board(), moves=2) is None


def _material(board: chess.Board, colour: chess.Color) -> int:
    return sum(
        VALUES[piece] * (len(board.pieces(piece, colour)) - len(board.pieces(piece, not colour)))
        for piece in chess.PIECE_TYPES
    )


def _after_captures(
    board: chess.Board, alpha: int = -10_000, beta: int = 10_000, *, depth: int = 5
) -> int:
    """Return the material balance of the side to move once the captures that pay are played."""
    alpha = max(alpha, _material(board, board.turn))
    for move in list(board.generate_legal_captures()) if depth else ():
        if alpha >= beta:
            break
        board.push(move)
        alpha = max(alpha, -_after_captures(board, -beta, -alpha, depth=depth - 1))
        board.pop()
    return alpha
