"""The tactician: counts material and piece placement, and looks ahead as far as it can.

Alpha-beta search with iterative deepening, captures first, killer moves, and a quiescence search
that plays out captures so that no exchange is judged half way. The effort is limited by a number of
nodes and not by a clock, hence the same position always gets the same move.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import chess

from engines.material import (
    ENDGAME_MATERIAL,
    MATE,
    TABLES,
    VALUES,
    heavy_material,
    hunt,
    jitter,
    placement,
)
from engines.mates import forced_mate

MAX_DEPTH: Final = 5
NODE_BUDGET: Final = 900  # 15 to 25 ms of one core
QUIESCENCE_DEPTH: Final = 6
TIE_SPREAD: Final = 9  # moves that differ by less than a tenth of a pawn count as equal
CONTEMPT: Final = 25  # a repeated position is a little worse than an equal one


def choose(board: chess.Board, seed: int) -> chess.Move:
    """Return the move that the tactician plays in a position that is not over."""
    mate = forced_mate(board, moves=2)
    if mate is not None:
        return mate
    return _Search(board.copy(), seed).best_move()


class _BudgetSpentError(Exception):
    """The node budget is used up: keep the best move found so far."""


@dataclass(slots=True)
class _Search:
    """One search: a private board and what has been learnt about it."""

    board: chess.Board
    seed: int
    nodes: int = 0
    is_endgame: bool = False
    killers: dict[int, chess.Move] = field(default_factory=dict[int, chess.Move])

    def best_move(self) -> chess.Move:
        """Deepen until the budget is spent; return the best move of the deepest search."""
        self.is_endgame = heavy_material(self.board) <= ENDGAME_MATERIAL
        colour = self.board.turn
        static = placement(self.board, colour) - placement(self.board, not colour)
        moves = self._ordered(list(self.board.legal_moves), ply=0)
        try:
            for depth in range(1, MAX_DEPTH + 1):
                moves = self._search_root(moves, static, depth)
        except _BudgetSpentError:
            pass  # `moves` is the order that the last complete depth left behind
        return moves[0]

    def _search_root(self, moves: list[chess.Move], static: int, depth: int) -> list[chess.Move]:
        """Return `moves` with the best one in front."""
        best, best_score = moves[0], -2 * MATE
        for move in moves:
            score = self._score_root(move, static, depth, best_score)
            if score > best_score:
                best, best_score = move, score
        return [best, *(move for move in moves if move != best)]

    def _score_root(self, move: chess.Move, static: int, depth: int, best_score: int) -> int:
        tie = jitter(self.seed, move, TIE_SPREAD)
        after = static + _gain(self.board, move)
        alpha = max(best_score - tie, -2 * MATE)
        self.board.push(move)
        try:
            if self.board.is_repetition(2):
                return -CONTEMPT
            return -self._negamax(-after, depth - 1, -2 * MATE, -alpha, 1) + tie
        finally:
            self.board.pop()

    def _negamax(self, static: int, depth: int, alpha: int, beta: int, ply: int) -> int:
        """Return the worth of the position for the side to move."""
        if depth <= 0:
            return self._quiesce(static, alpha, beta, ply, QUIESCENCE_DEPTH)
        moves = list(self.board.legal_moves)
        if not moves:
            return ply - MATE if self.board.is_check() else 0
        self._spend()
        best = -2 * MATE
        for move in self._ordered(moves, ply):
            gain = _gain(self.board, move)
            self.board.push(move)
            try:
                score = -self._negamax(-static - gain, depth - 1, -beta, -alpha, ply + 1)
            finally:
                self.board.pop()
            best, alpha = max(best, score), max(alpha, score)
            if alpha >= beta:
                self.killers[ply] = move
                break
        return best

    def _quiesce(self, static: int, alpha: int, beta: int, ply: int, depth: int) -> int:
        """Return the worth of the position once the captures are played out."""
        self._spend()
        in_check = self.board.is_check()
        if in_check:
            moves = list(self.board.legal_moves)
            if not moves:
                return ply - MATE
            best = -2 * MATE if depth > 0 else self._stand(static)
        else:
            best = self._stand(static)
            moves = list(self.board.generate_legal_captures())
        alpha = max(alpha, best)
        if alpha >= beta or depth <= 0:
            return best
        for move in self._ordered(moves, ply):
            gain = _gain(self.board, move)
            if not in_check and best + gain + 200 < alpha:
                continue  # even with two pawns on top this capture changes nothing
            self.board.push(move)
            try:
                score = -self._quiesce(-static - gain, -beta, -alpha, ply + 1, depth - 1)
            finally:
                self.board.pop()
            best, alpha = max(best, score), max(alpha, score)
            if alpha >= beta:
                break
        return best

    def _stand(self, static: int) -> int:
        """Return the static worth; in endings the side that is ahead hunts the other king."""
        if self.is_endgame and abs(static) > VALUES[chess.ROOK] - 100:
            ahead = self.board.turn if static > 0 else not self.board.turn
            bonus = hunt(self.board, ahead)
            return static + bonus if static > 0 else static - bonus
        return static

    def _ordered(self, moves: list[chess.Move], ply: int) -> list[chess.Move]:
        killer = self.killers.get(ply)
        return sorted(moves, key=lambda move: self._promise(move, killer), reverse=True)

    def _promise(self, move: chess.Move, killer: chess.Move | None) -> int:
        """Return how early to try a move: valuable victims of cheap attackers first."""
        board = self.board
        victim = board.piece_type_at(move.to_square)
        piece = board.piece_type_at(move.from_square) or chess.PAWN
        if victim is not None:
            return 10_000 + 10 * VALUES[victim] - VALUES[piece]
        if move.promotion is not None:
            return 9_000 + VALUES[move.promotion]
        if move == killer:
            return 5_000
        table = TABLES[piece][board.turn]
        return table[move.to_square] - table[move.from_square]

    def _spend(self) -> None:
        self.nodes += 1
        if self.nodes > NODE_BUDGET:
            raise _BudgetSpentError


def _gain(board: chess.Board, move: chess.Move) -> int:
    """Return what `move`, about to be played, adds to the placement of the side to move."""
    colour = board.turn
    piece = board.piece_type_at(move.from_square) or chess.PAWN
    placed = move.promotion or piece
    gain = TABLES[placed][colour][move.to_square] - TABLES[piece][colour][move.from_square]
    victim = board.piece_type_at(move.to_square)
    if victim is not None:
        return gain + TABLES[victim][not colour][move.to_square]
    if piece == chess.PAWN and move.to_square == board.ep_square:
        passed = chess.square(
            chess.square_file(move.to_square), chess.square_rank(move.from_square)
        )
        return gain + TABLES[chess.PAWN][not colour][passed]
    if piece == chess.KING and board.is_castling(move):
        return gain + 30  # the rook's new square, roughly
    return gain
