"""Runs on disk: Parquet writing and reading."""
