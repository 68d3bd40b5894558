"""The ``torchwhy`` command: a file for each of its subcommands."""

from torchwhy.cli.listings import methods_table, metrics_table
from torchwhy.cli.parser import main

__all__ = ["main", "methods_table", "metrics_table"]
