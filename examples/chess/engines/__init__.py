"""Two chess engines that think in different ways, and the table that names them.

An engine is a plain function of a board and a seed: the same arguments always give the same move,
so a step that is tried again after a crash plays the move that it would have played before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import chess

from engines import positional, tactician

Engine = Callable[[chess.Board, int], chess.Move]

ENGINES: Final[dict[str, Engine]] = {
    "tactician": tactician.choose,
    "positional": positional.choose,
}

__all__ = ["ENGINES", "Engine"]
