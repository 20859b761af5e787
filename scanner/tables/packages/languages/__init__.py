"""One module for each language whose tools leave packages on disk."""
