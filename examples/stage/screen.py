"""What the tour shows: headings, facts, tables, and a chess board that is redrawn in place."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

LINE_EVERY_PLIES: Final = 10  # where nothing can be redrawn, so many moves share a line
_GLYPHS: Final = dict(zip("kqrbnp", "♚♛♜♝♞♟", strict=True))
_LIGHT, _DARK = "on #d8b98f", "on #9a6a42"
_START: Final = "rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR"


class Screen:
    """Writes to the terminal, or plainly to whatever else standard output is."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)

    @property
    def is_live(self) -> bool:
        """Whether somebody watches on a terminal."""
        return self.console.is_terminal

    def title(self, text: str, below: str) -> None:
        self.console.print(f"\n[bold]{text}[/bold]\n[dim]{below}[/dim]")

    def chapter(self, number: int, text: str) -> None:
        self.console.print(f"\n[bold cyan]{number}  {text}[/bold cyan]")

    def fact(self, text: str) -> None:
        self.console.print(f"   [green]✓[/green] {text}")

    def trouble(self, text: str) -> None:
        self.console.print(f"   [red]✗[/red] {text}")

    def aside(self, text: str) -> None:
        self.console.print(Text(f"     {text}", style="dim"))

    def block(self, text: str) -> None:
        for line in text.splitlines():
            self.console.print(Text(f"     {line}"))

    def rows(self, rows: Iterable[tuple[str, str]]) -> None:
        """Show two columns: a number, and what it counts."""
        known = list(rows)
        width = max((len(number) for number, _ in known), default=0)
        for number, what in known:
            self.console.print(Text.assemble("     ", (number.rjust(width), "bold"), f"  {what}"))

    @contextmanager
    def working(self, text: str) -> Generator[None]:
        """Say what is going on while it goes on; a spinner on a terminal."""
        if self.is_live:
            with self.console.status(text):
                yield
        else:
            self.aside(text)
            yield

    @contextmanager
    def game(self, white: str, black: str) -> Generator[Game]:
        """Show a game; redrawn on a terminal, otherwise a line every few moves."""
        game = Game(white, black)
        if self.is_live:
            with Live(game, console=self.console, refresh_per_second=20):
                yield game
        else:
            game.print_lines_to(self)
            yield game
            game.finish_line()


@dataclass(slots=True)
class Game:
    """A game as far as it has been seen."""

    white: str
    black: str
    moves: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    note: str = ""
    _screen: Screen | None = None
    _line: list[str] = field(default_factory=list[str])

    def print_lines_to(self, screen: Screen) -> None:
        self._screen = screen

    def add(self, move: dict[str, Any]) -> None:
        self.moves.append(move)
        self._line.append(_numbered(move))
        if len(self._line) == LINE_EVERY_PLIES:
            self.finish_line()

    def finish_line(self) -> None:
        if self._screen is not None and self._line:
            self._screen.aside(" ".join(self._line))
        self._line.clear()

    def say(self, note: str) -> None:
        """Show a note below the board (or on a line of its own)."""
        self.note = note
        if self._screen is not None:
            self.finish_line()
            self._screen.aside(note)

    def __rich__(self) -> Group:
        last = self.moves[-1] if self.moves else None
        board = _board(last["placement"] if last else _START, last["uci"] if last else "")
        tail = " ".join(_numbered(move) for move in self.moves[-8:])
        return Group(
            Text(),
            Text(f"     {self.black} (black)", style="dim"),
            board,
            Text(f"     {self.white} (white)", style="dim"),
            Text(f"     {tail}"),
            Text(f"     {self.note}", style="yellow"),
        )


def _numbered(move: dict[str, Any]) -> str:
    ply = int(move["ply"])
    number = f"{(ply + 1) // 2}. " if ply % 2 else ""
    return f"{number}{move['san']}"


def _board(placement: str, last: str) -> Text:
    """Draw a position; the squares of the last move stand out."""
    text = Text()
    for row, rank in zip(placement.split("/"), range(8, 0, -1), strict=True):
        text.append(f"   {rank} ", style="dim")
        pieces = "".join(" " * int(char) if char.isdigit() else char for char in row)
        for file, piece in zip("abcdefgh", pieces, strict=True):
            text.append(f"{_GLYPHS.get(piece.lower(), ' ')} ", _style(piece, file, rank, last))
        text.append("\n")
    return text.append("     a b c d e f g h", style="dim")


def _style(piece: str, file: str, rank: int, last: str) -> str:
    colour = "black" if piece.islower() else "bright_white"
    is_last = f"{file}{rank}" in (last[:2], last[2:4])
    dark = ("abcdefgh".index(file) + rank) % 2 == 1
    return f"{colour} {'on #b8a53f' if is_last else _DARK if dark else _LIGHT}"
