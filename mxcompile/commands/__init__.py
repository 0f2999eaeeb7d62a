"""The commands of ``mxcompile``, one a file: parse, one call, print. Slow imports stand inside the functions."""
