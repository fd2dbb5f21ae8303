"""Print one of the README's command blocks, word for word: CI runs what a reader would copy.

Usage: python readme_commands.py README.md 1

That is the first ```sh block below the heading "Two commands".
"""

import re
import sys
from pathlib import Path

HEADING = "## Two commands"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def command_blocks(readme: str) -> list[str]:
    """Return the shell blocks of the section that holds the two commands."""
    _, heading, rest = readme.partition(f"\n{HEADING}\n")
    if not heading:
        raise SystemExit(f"the README has no heading '{HEADING}'")
    section, _, _ = rest.partition("\n## ")
    return BLOCK.findall(section)


def main(readme: str, number: str) -> None:
    """Print block `number`, counted from 1."""
    blocks = command_blocks(Path(readme).read_text(encoding="utf-8"))
    if len(blocks) != 2:
        raise SystemExit(f"expected two command blocks in {readme}, got {len(blocks)}")
    print(blocks[int(number) - 1], end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
