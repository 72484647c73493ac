"""What a piece is worth, and what it is worth on a given square, in hundredths of a pawn.

The piece-square tables are computed from a few rules of thumb (knights belong in the centre, pawns
want to advance, the king hides until the queens are gone) rather than written down by hand.
"""

from __future__ import annotations

from typing import Final

import chess

VALUES: Final[dict[chess.PieceType, int]] = {
    chess.PAWN: 100,
    chess.KNIGHT: 310,
    chess.BISHOP: 330,
    chess.ROOK: 500,
    chess.QUEEN: 950,
    chess.KING: 0,
}
MATE: Final = 100_000
ENDGAME_MATERIAL: Final = 2600  # both sides' pieces without pawns; about a rook and a minor each


def centrality(square: chess.Square) -> int:
    """Return 0 in a corner and 6 on the four squares in the middle."""
    file, rank = chess.square_file(square), chess.square_rank(square)
    return min(file, 7 - file) + min(rank, 7 - rank)


def _bonus(piece: chess.PieceType, square: chess.Square) -> int:
    """Return what White gains from `piece` standing on `square` in the middle game."""
    file, rank, centre = chess.square_file(square), chess.square_rank(square), centrality(square)
    match piece:
        case chess.PAWN:
            advance = (0, 0, 4, 10, 22, 45, 80, 0)[rank]
            return advance + (14 if file in (3, 4) and rank in (3, 4) else 0)
        case chess.KNIGHT:
            return 9 * centre - 34 - (8 if rank == 0 else 0)
        case chess.BISHOP:
            return 5 * centre - 14 - (8 if rank == 0 else 0)
        case chess.ROOK:
            return (18 if rank == 6 else 0) + (5 if file in (3, 4) else 0)
        case chess.QUEEN:
            return 2 * centre - 6
        case _:
            hidden = 22 if rank == 0 and file in (1, 2, 6) else 0
            return hidden - 12 * rank - 3 * centre


def _table(piece: chess.PieceType) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tables for Black and White (indexed by colour, then by square)."""
    white = [VALUES[piece] + _bonus(piece, square) for square in chess.SQUARES]
    black = [white[chess.square_mirror(square)] for square in chess.SQUARES]
    return tuple(black), tuple(white)


TABLES: Final = {piece: _table(piece) for piece in chess.PIECE_TYPES}


def heavy_material(board: chess.Board) -> int:
    """Return what the pieces of both sides are worth, kings and pawns left out."""
    return sum(
        VALUES[piece] * board.pieces_mask(piece, colour).bit_count()
        for piece in (chess.KNIGHT, chess.BISHOP, chess.ROOK, chess.QUEEN)
        for colour in chess.COLORS
    )


def placement(board: chess.Board, colour: chess.Color) -> int:
    """Return what the pieces of `colour` are worth where they stand."""
    return sum(
        table[colour][square]
        for piece, table in TABLES.items()
        for square in chess.scan_forward(board.pieces_mask(piece, colour))
    )


def hunt(board: chess.Board, hunter: chess.Color) -> int:
    """Return how far `hunter` has driven the other king to the edge, and how near its own is.

    It makes progress towards mate in endings in which a shallow search sees none.
    """
    own, other = board.king(hunter), board.king(not hunter)
    if own is None or other is None:
        return 0
    return 12 * (6 - centrality(other)) + 6 * (7 - chess.square_distance(own, other))


def jitter(seed: int, move: chess.Move, spread: int) -> int:
    """Return a number from 0 to `spread` - 1 that depends on nothing but `seed` and `move`.

    It breaks ties between moves of equal worth, so that matches with different seeds differ.
    """
    mixed = (seed * 0x9E3779B1 + move.from_square * 0x85EBCA6B + move.to_square * 0xC2B2AE35) >> 7
    return mixed % spread
