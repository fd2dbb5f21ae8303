"""``python -m pyconv``: info, demo and bench."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pyconv", description="Convolution layers on NumPy arrays."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("info", help="print versions, compiler, instruction sets and threads")
    demo = commands.add_parser(
        "demo", help="train a small network on handwritten digits and save a picture of it"
    )
    demo.add_argument(
        "--seed", type=int, default=0, help="default: 0; the same seed, the same bits"
    )
    demo.add_argument("--epochs", type=int, default=30, help="default: 30")
    demo.add_argument(
        "--output",
        metavar="PATH",
        default="pyconv-demo.png",
        help="where to save the picture; default: pyconv-demo.png",
    )
    from pyconv._bench import cli, layers

    bench = commands.add_parser(
        "bench", help="time the layers, beside torch and onnxruntime where they are installed"
    )
    cli.add_options(bench, full=False)
    options = parser.parse_args(arguments)

    if options.command == "info":
        from pyconv._config import show_config

        show_config()
        return 0

    if options.command == "bench":
        return cli.run(options, layers.SHORT)

    if options.seed < 0 or options.epochs < 1:
        demo.error("--seed must not be negative and --epochs must be at least 1")
    from pyconv.demo import run

    return run(options.seed, options.epochs, options.output)


if __name__ == "__main__":
    sys.exit(main())
