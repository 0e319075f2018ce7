"""Binlake's stream for Spark: chunks and cuts (docs/chunk-format.md), and one table's way from them into its Hudi table."""
