"""pyconv beside torch and onnxruntime on all layers of shapes.csv; bench/README.md explains it.

    python bench/bench.py --output bench/results/machine.csv   # all rows, hours; resumes
    python bench/bench.py --quick                              # a few layers: two minutes
    python bench/bench.py --layers resnet50_v1.5/res2_3x3 --dtypes f32 --threads 1 --batches 1
    python bench/bench.py --summary bench/results/machine.csv

`python -m pyconv bench` is the same over the short list of layers.
"""

import argparse
import sys
from pathlib import Path

from pyconv._bench import cli

SHAPES = Path(__file__).with_name("shapes.csv")


def main() -> int:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_options(parser, full=True)
    return cli.run(parser.parse_args(), SHAPES)


if __name__ == "__main__":
    sys.exit(main())
