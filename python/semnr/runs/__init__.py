"""The folder of a scored run: `run.json` and the rows in Parquet. It is written and read here and nowhere else."""

from .parquet import ParquetSink, parts, read_rows
from .run import Run, machine
from .seen_ids import TileIds

__all__ = ["ParquetSink", "Run", "TileIds", "machine", "parts", "read_rows"]
