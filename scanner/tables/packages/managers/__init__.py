"""One module for each package manager's database."""
