"""mxcompile: Hugging Face models to 4-bit block-scaled ONNX.

::

    report  = mxcompile.compile("folder-or-id-or-onnx", format="amxfp4", output="out.onnx")
    session = mxcompile.create_session("out.onnx", threads=2)
    library = mxcompile.custom_ops_library()
    fmt     = mxcompile.formats.get_format("amxfp4")
    cache   = mxcompile.kv_cache.empty_cache(session.get_inputs())

Importing the package is cheap: each of these loads what it needs when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mxcompile import formats, kv_cache
    from mxcompile.compiler import compile_model as compile
    from mxcompile.runtime import create_session, custom_ops_library

__all__ = ["compile", "create_session", "custom_ops_library", "formats", "kv_cache"]

_LAZY = {
    "compile": ("mxcompile.compiler", "compile_model"),
    "create_session": ("mxcompile.runtime", "create_session"),
    "custom_ops_library": ("mxcompile.runtime", "custom_ops_library"),
}


def __getattr__(name: str) -> Any:
    if name in ("formats", "kv_cache"):
        return importlib.import_module(f"mxcompile.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'mxcompile' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(module), attribute)
