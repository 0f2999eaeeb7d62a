"""The syntax of Liberty files: groups with attributes, and Boolean expressions.

Source: Liberty User Guides and Reference Manual, version 2017.06, chapter 1.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mxcompile.errors import CostModelError

Expression = tuple[Any, ...]
"""``("pin", name)``, ``("constant", 0 or 1)``, ``("not", e)``, ``("and" | "or" | "xor", e, e)``."""


_TOKEN: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|([{}();:,])|([^\s{}();:,"]+)', re.DOTALL)
_SKIP: Final = re.compile(r"/\*.*?\*/|\\\r?\n", re.DOTALL)


class LibertyError(CostModelError):
    """A Liberty file that cannot be read, or that lacks what is needed."""


@dataclasses.dataclass(frozen=True)
class Group:
    """A group of a Liberty file: ``kind (arguments) { attributes and groups }``."""

    kind: str
    arguments: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]
    groups: tuple["Group", ...]

    def all(self, kind: str) -> Iterator["Group"]:
        """The groups inside of that kind."""
        return (group for group in self.groups if group.kind == kind)

    def text(self, name: str, default: str = "") -> str:
        """An attribute's only or first value."""
        return self.attributes.get(name, (default,))[0]


def parse(text: str) -> Group:
    """The first group of a Liberty text, with everything inside.

    Raises:
        LibertyError: A bracket or a semicolon is missing.
    """
    tokens = [(m.group(2) or "", m.group(1) or m.group(3) or "") for m in _TOKEN.finditer(_SKIP.sub(" ", text))]
    tokens.append(("", ""))  # so that a look ahead is always possible
    try:
        found, _ = _group(tokens, 0)
    except IndexError as error:
        raise LibertyError("the Liberty text ends inside of a group: a closing bracket is missing") from error
    return found


def parse_expression(text: str) -> Expression:
    """A Boolean expression: ``!a``, ``a'``, ``a & b``, ``a * b``, ``a b``, ``a ^ b``, ``a | b``, ``a + b``, 0, 1.

    Source: Liberty Reference Manual 2017.06, function attribute: inversion binds strongest, then XOR, AND, OR.
    """
    tokens = re.findall(r"[\w\[\]]+|[!'&*|+^()]", text)
    found, rest = _binary(tokens, 0)
    if rest != len(tokens):
        raise LibertyError(f"Boolean expression {text!r}: {tokens[rest]!r} was not expected there")
    return found


def evaluate(expression: Expression, values: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """An expression's value from those of its pins, bit by bit: arrays of bool or unsigned integers of one shape."""
    kind = expression[0]
    if kind == "pin":
        return values[expression[1]]
    if kind == "constant":
        some = next(iter(values.values()))
        return ~np.zeros_like(some) if expression[1] else np.zeros_like(some)
    if kind == "not":
        return ~evaluate(expression[1], values)
    left, right = evaluate(expression[1], values), evaluate(expression[2], values)
    result: npt.NDArray[Any] = left & right if kind == "and" else left | right if kind == "or" else left ^ right
    return result


def _group(tokens: Sequence[tuple[str, str]], at: int) -> tuple[Group, int]:
    """The group whose kind is at that token, and where it ends."""
    kind = tokens[at][1]
    arguments, at = _arguments(tokens, at + 1)
    at += 1  # {
    attributes: dict[str, tuple[str, ...]] = {}
    groups = []
    while tokens[at][0] != "}":
        name, following = tokens[at][1], tokens[at + 1][0]
        if following == ":":
            end = at + 2
            while tokens[end][0] not in (";", "}"):
                if end - at > 2 and tokens[end + 1][0] == ":":
                    break  # a line without a semicolon
                end += 1
            attributes[name] = (" ".join(word for _, word in tokens[at + 2 : end]),)
            at = end + (tokens[end][0] == ";")
        elif following == "(":
            values, end = _arguments(tokens, at + 1)
            if tokens[end][0] == "{":
                group, at = _group(tokens, at)
                groups.append(group)
            else:
                attributes[name] = values
                at = end + (tokens[end][0] == ";")
        else:
            at += 1  # a stray semicolon
        if at >= len(tokens) - 1:
            raise IndexError
    return Group(kind, arguments, attributes, tuple(groups)), at + 1


def _arguments(tokens: Sequence[tuple[str, str]], at: int) -> tuple[tuple[str, ...], int]:
    """What stands between the brackets that open at that token, and where they end."""
    end = at + 1
    while tokens[end][0] != ")":
        end += 1
    return tuple(word for mark, word in tokens[at + 1 : end] if not mark), end + 1


_LEVELS: Final = (("or", "|+"), ("and", "&*"), ("xor", "^"))


def _binary(tokens: Sequence[str], at: int, level: int = 0) -> tuple[Expression, int]:
    if level == len(_LEVELS):
        return _unary(tokens, at)
    kind, marks = _LEVELS[level]
    left, at = _binary(tokens, at, level + 1)
    while at < len(tokens):
        adjacent = kind == "and" and tokens[at] not in "&*|+^)'"
        if tokens[at] not in marks and not adjacent:
            break
        right, at = _binary(tokens, at + (not adjacent), level + 1)
        left = (kind, left, right)
    return left, at


def _unary(tokens: Sequence[str], at: int) -> tuple[Expression, int]:
    if at >= len(tokens):
        raise LibertyError(f"Boolean expression {' '.join(tokens)!r} ends too early")
    found: Expression
    if tokens[at] == "!":
        inner, at = _unary(tokens, at + 1)
        return ("not", inner), at
    if tokens[at] == "(":
        found, at = _binary(tokens, at + 1)
        if tokens[at : at + 1] != [")"]:
            raise LibertyError(f"Boolean expression {' '.join(tokens)!r}: a closing bracket is missing")
    else:
        found = ("constant", int(tokens[at])) if tokens[at] in "01" else ("pin", tokens[at])
    at += 1
    while at < len(tokens) and tokens[at] == "'":
        found, at = ("not", found), at + 1
    return found, at
