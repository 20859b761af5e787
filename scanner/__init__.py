"""fleetscan's host side: from a source of machines to checked Parquet tables."""
