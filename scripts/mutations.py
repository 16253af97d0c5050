"""Small changes to a Python module, each of which a good test suite notices.

A mutation replaces the text of one expression or statement and leaves every other character, and
so every line number, where it was. Left out is what no test should depend on: docstrings, texts,
messages of errors and warnings, logging, type annotations, decorators, assertions, `__repr__` and
zip's `strict`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

OPERATORS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"), ast.Mod: ("%", "*"), ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"), ast.BitXor: ("^", "&"),
    ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"), ast.And: ("and", "or"),
    ast.Or: ("or", "and"), ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"), ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}  # fmt: skip
"""By node: the operator as it is written, and what it becomes."""
SILENT_CALLS = {
    "print",
    "warn",
    "debug",
    "info",
    "warning",
    "error",
    "tqdm",
    "write",
    "set_description",
}
SILENT_KEYWORDS = {"strict", "stacklevel", "encoding", "desc", "help"}
SILENT_FUNCTIONS = {"__repr__", "__str__"}


@dataclass(frozen=True)
class Mutation:
    """One change of a module.

    Attributes:
        line: where it begins, from 1.
        function: the dotted name of the function or class it is in; empty at the top.
        kind: operator, constant, condition, bound, return, argument or statement.
        before, after: the text replaced, and what replaces it.
        start, end: which characters of the module are replaced.
    """

    line: int
    function: str
    kind: str
    before: str
    after: str
    start: int
    end: int

    def apply(self, source: str) -> str:
        """Return the changed module."""
        return source[: self.start] + self.after + source[self.end :]


class _Text:
    """The characters of a module by the places that its syntax tree gives."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.begins = [0]
        for line in source.splitlines(keepends=True):
            self.begins.append(self.begins[-1] + len(line))
        self.lines = source.splitlines(keepends=True)

    def _place(self, line: int, column: int) -> int:
        """Return the index of a place; columns count UTF-8 bytes."""
        before = self.lines[line - 1].encode()[:column].decode()
        return self.begins[line - 1] + len(before)

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Return where the text of an expression or statement begins and ends."""
        assert isinstance(node, ast.expr | ast.stmt)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._place(node.lineno, node.col_offset)
        return start, self._place(node.end_lineno, node.end_col_offset)

    def between(self, left: ast.AST, right: ast.AST, word: str) -> tuple[int, int] | None:
        """Return where an operator stands between two expressions, brackets aside."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = self.source[start:end]
        if gap.split("#")[0].strip(" ()\n\\") != word:
            return None  # a comment in between
        found = start + gap.index(word)
        return found, found + len(word)


def mutations(source: str) -> list[Mutation]:
    """Return every mutation of a module, in the order of its lines; a few do not compile."""
    text = _Text(source)
    found = {}
    for node, function in _shown(ast.parse(source)):
        for kind, (start, end), after in _changes(node, text):
            line = source.count("\n", 0, start) + 1
            change = Mutation(line, function, kind, source[start:end], after, start, end)
            found[start, end, after] = change
    return [found[place] for place in sorted(found)]


def compiles(change: Mutation, source: str) -> bool:
    """Return whether the changed module is Python, and another program than before."""
    try:
        return ast.dump(ast.parse(change.apply(source))) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def _shown(tree: ast.AST, function: str = "") -> Iterator[tuple[ast.AST, str]]:
    """Walk over the nodes whose value a test can see, with the function that they are in."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "type_params", "op", "ops"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST) or _silent(node):
                continue
            inside = function
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                inside = f"{function}.{node.name}".lstrip(".")
            yield node, inside
            yield from _shown(node, inside)


def _silent(node: ast.AST) -> bool:
    """Return whether a node is a text, a message, an assertion or about types only."""
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.keyword):
        return node.arg in SILENT_KEYWORDS
    if isinstance(node, ast.FunctionDef):
        return node.name in SILENT_FUNCTIONS
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test) or "__name__" in ast.dump(node.test)
    if isinstance(node, ast.Call):
        called = node.func
        name = getattr(called, "attr", getattr(called, "id", ""))
        return name in SILENT_CALLS or name.endswith("Error") or name == "cast"
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)


def _changes(node: ast.AST, text: _Text) -> Iterator[tuple[str, tuple[int, int], str]]:
    """Return kind, place and new text of every change of one node, not of those below it."""
    yield from _operators(node, text)
    if isinstance(node, ast.Constant):
        span = text.span(node)
        if isinstance(node.value, bool):
            yield "constant", span, str(not node.value)
        elif isinstance(node.value, int | float):
            yield from (("constant", span, f"({node.value!r} {by})") for by in ("+ 1", "- 1"))
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield "condition", *_wrapped(node.test, text, "not ({})")
    for test in getattr(node, "ifs", []):
        yield "condition", *_wrapped(test, text, "not ({})")
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "operator", *_replaced(node, node.operand, text)
    if isinstance(node, ast.Slice):
        for bound in (node.lower, node.upper):
            if bound is not None:
                yield "bound", *_wrapped(bound, text, "({}) + 1")
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id == "range" and node.args:
            yield "bound", *_wrapped(node.args[min(1, len(node.args) - 1)], text, "({}) + 1")
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name[:1].islower() and node.args and not isinstance(node.args[0], ast.Starred):
            yield "argument", *_replaced(node, node.args[0], text)
    if isinstance(node, ast.Return) and node.value is not None:
        yield "return", text.span(node.value), "None"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and not _silent(node.value):
        yield "statement", text.span(node), "pass"


def _operators(node: ast.AST, text: _Text) -> Iterator[tuple[str, tuple[int, int], str]]:
    """Return the changes of each operator of an expression."""
    pairs: list[tuple[ast.AST, ast.AST, ast.AST]] = []
    if isinstance(node, ast.BinOp):
        pairs = [(node.left, node.op, node.right)]
    elif isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        pairs = list(zip(sides, node.ops, sides[1:], strict=False))
    elif isinstance(node, ast.BoolOp):
        pairs = [(a, node.op, b) for a, b in zip(node.values, node.values[1:], strict=False)]
    for left, op, right in pairs:
        before, after = OPERATORS.get(type(op), ("", ""))
        if before and (span := text.between(left, right, before)):
            yield "operator", span, after
    if isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        before, after = (f"{word}=" for word in OPERATORS[type(node.op)])
        if span := text.between(node.target, node.value, before):
            yield "operator", span, after


def _wrapped(node: ast.expr, text: _Text, form: str) -> tuple[tuple[int, int], str]:
    span = text.span(node)
    return span, "(" + form.format(text.source[slice(*span)]) + ")"


def _replaced(node: ast.expr, by: ast.expr, text: _Text) -> tuple[tuple[int, int], str]:
    return text.span(node), f"({text.source[slice(*text.span(by))]})"
