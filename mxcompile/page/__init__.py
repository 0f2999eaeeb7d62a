"""Reports as one HTML file with nothing from outside: figures, the graph by format, error or energy, and values."""
