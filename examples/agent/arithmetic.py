"""Arithmetic on texts, by Python's own parser and without `eval`."""

from __future__ import annotations

import ast
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Final

MAX_CHARACTERS: Final = 200
DIGITS: Final = 6  # behind the point

_OPERATIONS: Final[dict[type[ast.operator], Callable[[Decimal, Decimal], Decimal]]] = {
    ast.Add: Decimal.__add__,
    ast.Sub: Decimal.__sub__,
    ast.Mult: Decimal.__mul__,
    ast.Div: Decimal.__truediv__,
}


def evaluate(expression: str) -> str:
    """Return the value of an expression of numbers, + - * / and parentheses.

    Raises:
        ValueError: it is something else, too long, or divides by zero.
    """
    if len(expression) > MAX_CHARACTERS:
        raise ValueError(f"an expression has at most {MAX_CHARACTERS} characters")
    try:
        rounded = round(_value(ast.parse(expression.strip(), mode="eval").body), DIGITS)
    except (SyntaxError, InvalidOperation, ZeroDivisionError) as error:
        raise ValueError(f"cannot calculate {expression!r}") from error
    return f"{rounded.normalize():f}"


def _value(node: ast.expr) -> Decimal:
    match node:
        case ast.Constant(value=int() | float() as number):
            return Decimal(str(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            return _OPERATIONS[type(op)](_value(left), _value(right))
        case _:
            raise ValueError(f"{ast.unparse(node)!r} is not arithmetic")
