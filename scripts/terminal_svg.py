# SPDX-License-Identifier: Apache-2.0
"""Turns captured terminal text with colour codes (standard input) into an SVG picture (standard output).

docs/demo.svg is made with it:
  tmux new-session -d -s demo -x 104 -y 46 './demo.sh'; ...; tmux capture-pane -e -p -t demo | python3 scripts/terminal_svg.py
"""
import html
import re
import sys

COLOURS = {31: "#ff6b68", 32: "#7ec16e", 33: "#e6c07b", 36: "#56b6c2"}
CELL_WIDTH, CELL_HEIGHT, MARGIN = 8.4, 18, 14


def spans(line):
    """[(text, colour or None, bold)] of one line."""
    colour, bold, found = None, False, []
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        match = re.fullmatch(r"\x1b\[([0-9;]*)m", part)
        if not match:
            if part:
                found.append((part, colour, bold))
            continue
        for code in (int(text or 0) for text in match.group(1).split(";")):
            if code == 0:
                colour, bold = None, False
            elif code == 1:
                bold = True
            elif code == 39:
                colour = None
            elif code in COLOURS:
                colour = COLOURS[code]
    return found


def main():
    lines = [line.rstrip() for line in sys.stdin.read().rstrip("\n").split("\n")]
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    width = max(map(len, plain)) * CELL_WIDTH + 2 * MARGIN
    height = len(lines) * CELL_HEIGHT + 2 * MARGIN
    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
          f'viewBox="0 0 {width:.0f} {height:.0f}">')
    print(f'<rect width="100%" height="100%" rx="8" fill="#1e2127"/>'
          f'<g font-family="ui-monospace,Menlo,Consolas,monospace" font-size="14" fill="#c8ccd4" xml:space="preserve">')
    for row, line in enumerate(lines):
        column = 0
        for text, colour, bold in spans(line):
            if text.strip():
                style = (f' fill="{colour}"' if colour else "") + (' font-weight="bold"' if bold else "")
                print(f'<text x="{MARGIN + column * CELL_WIDTH:.1f}" y="{MARGIN + (row + 0.8) * CELL_HEIGHT:.1f}" '
                      f'textLength="{len(text) * CELL_WIDTH:.1f}" lengthAdjust="spacingAndGlyphs"{style}>'
                      f'{html.escape(text)}</text>')
            column += len(text)
    print("</g></svg>")


if __name__ == "__main__":
    main()
