"""The errors that mxcompile raises on purpose.

::

    MxCompileError                  everything below; the CLI prints one red line and exits 1
    ├── ExportError                 a model that cannot be found, read, exported or written
    ├── UnsupportedModelError       a model that was read, but that this compiler cannot handle
    ├── FormatError                 an unknown format, or data that a format cannot hold
    ├── ConfigError                 settings that contradict each other or match nothing
    ├── CostModelError              a cost that cannot be told: a missing figure, a dimension without a value
    └── RuntimeLibraryError         the custom-op library is missing, of another version, or does not load

Every message says where, what was found, what is allowed, and what to do. Anything else that escapes is a bug.
"""


class MxCompileError(Exception):
    """Base of every error that mxcompile raises on purpose."""


class ExportError(MxCompileError):
    """A model that cannot be found, read, exported or written."""


class UnsupportedModelError(MxCompileError):
    """A model that was read, but that this compiler cannot handle."""


class FormatError(MxCompileError, ValueError):
    """An unknown format name, or data that a format cannot hold."""


class ConfigError(MxCompileError, ValueError):
    """Settings that contradict each other, or that match nothing in the model."""


class CostModelError(MxCompileError, ValueError):
    """A hardware cost that cannot be told: a missing or impossible figure, a dimension without a value."""


class RuntimeLibraryError(MxCompileError):
    """The custom-op library is missing, of another version, or does not load."""
