# SPDX-License-Identifier: Apache-2.0
"""Reads C sources well enough to judge them: what is code, where functions and declarations are.

No preprocessor and no grammar: comments, strings and directives are blanked out (newlines stay, so that
offsets and line numbers hold), and braces are counted. That is exact for code as clang-format leaves it.
"""

import dataclasses
import re

_COMMENT_OR_STRING = re.compile(
    r"""(?P<comment>/\*.*?\*/|//[^\n]*)|(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')""",
    re.DOTALL | re.VERBOSE,
)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\\n|\\.)*", re.MULTILINE)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)
_BRACE_OR_END = re.compile(r"[{};]")
_FORWARD = re.compile(r"(?:struct|union|enum)\s+\w+$")


@dataclasses.dataclass(frozen=True)
class Declaration:
    """A declaration or definition at file scope. Lines count from 1."""

    text: str
    first_line: int
    last_line: int
    is_function_body: bool

    @property
    def name(self):
        before_arguments = self.text.partition("(")[0]
        words = re.findall(r"\w+", before_arguments)
        return words[-1] if words else "?"

    @property
    def is_forward(self):
        """`struct foo;` says only that there is one."""
        return bool(_FORWARD.match(self.text))


def _blank(match):
    return re.sub(r"[^\n]", " ", match.group())


def code_of(text):
    """The text with comments and the insides of strings blanked."""

    def replace(match):
        if match.group("comment"):
            return _blank(match)
        quoted = match.group()
        return quoted[0] + re.sub(r"[^\n]", " ", quoted[1:-1]) + quoted[-1]

    return _COMMENT_OR_STRING.sub(replace, text)


def includes_of(text):
    """(line, '<' or '"', path) of every include."""
    without_comments = _COMMENT_OR_STRING.sub(
        lambda match: _blank(match) if match.group("comment") else match.group(), text
    )
    for match in _INCLUDE.finditer(without_comments):
        yield _line_of(text, match.start()), match.group(1), match.group(2)


def declarations_of(text):
    """Every declaration at file scope, in order; `extern "C"` blocks count as file scope."""
    code = _DIRECTIVE.sub(_blank, code_of(text))
    code = re.sub(r'extern\s+"\s*"\s*\{', _blank, code)
    depth, start, opened_body = 0, 0, False
    for match in _BRACE_OR_END.finditer(code):
        mark, at = match.group(), match.start()
        if mark == "{":
            if depth == 0:
                head = code[start:at].rstrip()
                opened_body = head.endswith(")") and "=" not in head
            depth += 1
            continue
        if mark == "}":
            if depth == 0:  # closes extern "C"
                start = at + 1
                continue
            depth -= 1
        if depth > 0 or (mark == "}" and not opened_body):
            continue
        whole = code[start : at if mark == ";" else at + 1]
        if whole.strip():
            first = start + len(whole) - len(whole.lstrip())
            yield Declaration(
                whole.strip(), _line_of(text, first), _line_of(text, at), opened_body and mark == "}"
            )
        start, opened_body = at + 1, False


def functions_of(text):
    """Every function with a body."""
    return [declaration for declaration in declarations_of(text) if declaration.is_function_body]


def has_comment(text, declaration):
    """Whether a comment ends on the line above, or stands behind on the declaration's last line."""
    lines = text.splitlines()
    above = lines[declaration.first_line - 2].rstrip() if declaration.first_line >= 2 else ""
    return above.endswith("*/") or lines[declaration.last_line - 1].rstrip().endswith("*/")


def _line_of(text, offset):
    return text.count("\n", 0, offset) + 1
