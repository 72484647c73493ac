"""The positional player: looks one move ahead, but looks hard.

It plays each legal move in its head and judges the position that arises: activity, pawn structure,
the king's shelter, open files, and what the opponent could win by the best exchange on one square.
It never searches a tree; only the few best candidates are checked for a mate in one against it.
"""

from __future__ import annotations

from typing import Final

import chess

from engines.material import (
    ENDGAME_MATERIAL,
    MATE,
    VALUES,
    centrality,
    heavy_material,
    hunt,
    jitter,
)
from engines.mates import forced_mate

CANDIDATES: Final = 6
TIE_SPREAD: Final = 9
MOBILITY: Final = {chess.KNIGHT: 5, chess.BISHOP: 5, chess.ROOK: 3, chess.QUEEN: 1}
PASSED_PAWN: Final = (0, 10, 15, 25, 45, 80, 140, 0)  # by how far it has advanced
REPETITION: Final = 60  # what it gives up rather than repeat a position


def choose(board: chess.Board, seed: int) -> chess.Move:
    """Return the move that the positional player plays in a position that is not over."""
    mate = forced_mate(board, moves=2)
    if mate is not None:
        return mate
    board = board.copy()
    scored = [
        (_judge(board, move) + jitter(seed, move, TIE_SPREAD), move) for move in board.legal_moves
    ]
    scored.sort(key=lambda pair: pair[0], reverse=True)
    best = [(score - _danger(board, move), move) for score, move in scored[:CANDIDATES]]
    return max(best, key=lambda pair: pair[0])[1]


def _judge(board: chess.Board, move: chess.Move) -> int:
    """Return the worth, for the side that plays `move`, of the position behind it."""
    colour = board.turn
    board.push(move)
    try:
        if board.is_stalemate() or board.is_insufficient_material():
            return 0
        score = _worth(board, colour) - _worth(board, not colour)
        is_ending = heavy_material(board) <= ENDGAME_MATERIAL
        if is_ending:
            score += _chase(board, colour, score)
        if board.is_repetition(2):
            score = min(score, 0) if score < 0 else -REPETITION
        return score - _threatened(board)
    finally:
        board.pop()


def _worth(board: chess.Board, colour: chess.Color) -> int:
    """Return what one side has: material, activity, structure and shelter."""
    score = sum(
        VALUES[piece] * board.pieces_mask(piece, colour).bit_count() for piece in chess.PIECE_TYPES
    )
    if board.pieces_mask(chess.BISHOP, colour).bit_count() >= 2:
        score += 35
    return (
        score
        + _activity(board, colour)
        + _pawn_structure(board, colour)
        + _open_files(board, colour)
        + _king(board, colour)
    )


def _activity(board: chess.Board, colour: chess.Color) -> int:
    """Return a bonus for squares that the pieces reach and for minor pieces in the centre."""
    own = board.occupied_co[colour]
    score = 0
    for piece, weight in MOBILITY.items():
        for square in chess.scan_forward(board.pieces_mask(piece, colour)):
            reach = (board.attacks_mask(square) & ~own).bit_count()
            score += weight * reach
            if piece in (chess.KNIGHT, chess.BISHOP):
                home = 0 if colour else 7
                score += 3 * centrality(square) - (12 if chess.square_rank(square) == home else 0)
    return score


def _pawn_structure(board: chess.Board, colour: chess.Color) -> int:
    """Return bonuses for the centre and for passed pawns, less those for weak pawns."""
    own = board.pieces_mask(chess.PAWN, colour)
    other = board.pieces_mask(chess.PAWN, not colour)
    score = 0
    for square in chess.scan_forward(own):
        file, rank = chess.square_file(square), chess.square_rank(square)
        advance = rank if colour else 7 - rank
        score += 12 if file in (3, 4) and advance in (3, 4) else 0
        if (own & chess.BB_FILES[file]).bit_count() > 1:
            score -= 9
        if not own & _beside(file):
            score -= 12
        if not other & (chess.BB_FILES[file] | _beside(file)) & _ahead(rank, colour):
            score += PASSED_PAWN[advance]
    return score


def _beside(file: int) -> chess.Bitboard:
    left = chess.BB_FILES[file - 1] if file > 0 else chess.BB_EMPTY
    right = chess.BB_FILES[file + 1] if file < 7 else chess.BB_EMPTY
    return left | right


def _ahead(rank: int, colour: chess.Color) -> chess.Bitboard:
    """Return all squares in front of `rank` as `colour` looks at the board."""
    below = (1 << 8 * rank) - 1
    return chess.BB_ALL & ~below & ~chess.BB_RANKS[rank] if colour else below


def _open_files(board: chess.Board, colour: chess.Color) -> int:
    """Return a bonus for rooks on files without pawns (half of it: without own pawns)."""
    own = board.pieces_mask(chess.PAWN, colour)
    pawns = own | board.pieces_mask(chess.PAWN, not colour)
    score = 0
    for square in chess.scan_forward(board.pieces_mask(chess.ROOK, colour)):
        file = chess.BB_FILES[chess.square_file(square)]
        score += 0 if own & file else 10 if pawns & file else 20
    return score


def _king(board: chess.Board, colour: chess.Color) -> int:
    """Return the king's shelter while queens are on the board, its activity afterwards."""
    king = board.king(colour)
    if king is None:
        return 0
    if not board.pieces_mask(chess.QUEEN, not colour):
        return 4 * centrality(king)
    shield = board.attacks_mask(king) & board.pieces_mask(chess.PAWN, colour)
    rank = chess.square_rank(king) if colour else 7 - chess.square_rank(king)
    corner = 24 if rank == 0 and chess.square_file(king) in (1, 2, 6) else 0
    rights = 10 if board.has_castling_rights(colour) else 0
    return 9 * min(shield.bit_count(), 3) + corner + rights - 14 * rank


def _chase(board: chess.Board, colour: chess.Color, score: int) -> int:
    if abs(score) < VALUES[chess.ROOK] - 100:
        return 0
    return hunt(board, colour) if score > 0 else -hunt(board, not colour)


def _threatened(board: chess.Board) -> int:
    """Return what the side to move can win by its best exchange on one square."""
    cheapest: dict[chess.Square, chess.Move] = {}
    for move in board.generate_legal_captures():
        held = cheapest.get(move.to_square)
        if held is None or _price(board, move) < _price(board, held):
            cheapest[move.to_square] = move
    gains = sorted((_exchange(board, move) for move in cheapest.values()), reverse=True)
    if not gains:
        return 0
    second = gains[1] // 4 if len(gains) > 1 else 0  # two pieces hang: one can be saved
    return max(gains[0], 0) + max(second, 0)


def _exchange(board: chess.Board, capture: chess.Move) -> int:
    """Return what `capture` wins when both sides go on to recapture as long as it pays."""
    victim = board.piece_type_at(capture.to_square) or chess.PAWN  # none: en passant
    board.push(capture)
    try:
        target = chess.BB_SQUARES[capture.to_square]
        replies = board.generate_legal_captures(to_mask=target)
        reply = min(replies, key=lambda move: _price(board, move), default=None)
        lost = 0 if reply is None else max(0, _exchange(board, reply))
    finally:
        board.pop()
    return VALUES[victim] - lost


def _price(board: chess.Board, move: chess.Move) -> int:
    """Return what the capturing piece is worth; a king captures last."""
    piece = board.piece_type_at(move.from_square) or chess.PAWN
    return VALUES[piece] if piece != chess.KING else MATE


def _danger(board: chess.Board, move: chess.Move) -> int:
    """Return the penalty for a move that allows a mate in one."""
    board.push(move)
    try:
        return MATE if forced_mate(board, moves=1) is not None else 0
    finally:
        board.pop()
