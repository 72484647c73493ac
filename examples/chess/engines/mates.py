"""A search for forced mates in which every move of the attacker gives check.

Checks leave the defender few replies, so the tree stays small where a full search of the same depth
would not. Both engines look here first.
"""

from __future__ import annotations

import chess


def forced_mate(board: chess.Board, *, moves: int) -> chess.Move | None:
    """Return a move that mates within `moves` moves by checks alone, the shortest first."""
    for depth in range(1, moves + 1):
        for move in _checks(board):
            board.push(move)
            mated = _is_lost(board, depth - 1)
            board.pop()
            if mated:
                return move
    return None


def _checks(board: chess.Board) -> list[chess.Move]:
    return [move for move in board.legal_moves if board.gives_check(move)]


def _is_lost(board: chess.Board, moves: int) -> bool:
    """Say whether the side to move, in check, is mated whatever it replies."""
    replies = list(board.legal_moves)
    if not replies:
        return True
    if moves == 0:
        return False
    return all(_mates_after(board, reply, moves) for reply in replies)


def _mates_after(board: chess.Board, reply: chess.Move, moves: int) -> bool:
    board.push(reply)
    mate = forced_mate(board, moves=moves)
    board.pop()
    return mate is not None
