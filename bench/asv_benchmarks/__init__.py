"""Benchmarks for asv: this package alone, over its history. See asv.conf.json."""

import sys
from pathlib import Path

# asv loads this folder as a separate package; the list of workloads is in the folder above.
sys.path.insert(0, str(Path(__file__).parents[2]))
