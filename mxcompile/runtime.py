"""Running compiled models: the custom-op library and onnxruntime sessions. The only file that imports onnxruntime."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
from onnxruntime import InferenceSession
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from mxcompile.errors import ExportError, RuntimeLibraryError, UnsupportedModelError
from mxcompile.ops import DOMAIN, OPSET, VERSION

LIBRARY_FILE = "libmxcompile_ops.so"
LIBRARY_VARIABLE = "MXCOMPILE_LIBRARY"
ONNXRUNTIME_VERSION: str = onnxruntime.__version__

_PROVIDERS = ["CPUExecutionProvider"]
_FATAL = 4
"""Log level of onnxruntime: every error is raised as well, and would otherwise be on stderr twice."""

_REINSTALL = "pip install --force-reinstall mxcompile"
_WITHOUT = "or run the model in stock onnxruntime, slower: library=False, --no-library"
_ERRORS = tuple(
    getattr(_state, name)
    for name in (
        "EngineError",
        "EPFail",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "ModelLoaded",
        "NoModel",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
)


@dataclasses.dataclass(frozen=True)
class LibraryInfo:
    """What the custom-op library says about itself.

    Attributes:
        version: Version of mxcompile that it was built from.
        isa: Kernels in use: ``scalar``, ``avx2``, ...; the environment variable MXCOMPILE_ISA forces one.
    """

    version: str
    isa: str


def custom_ops_library() -> Path:
    """Where the custom-op library is, for ``SessionOptions.register_custom_ops_library``.

    The environment variable MXCOMPILE_LIBRARY names another one; otherwise it lies beside this file, or, in an
    editable install, where the installer put it.

    Raises:
        RuntimeLibraryError: It is in none of these places.
    """
    if named := os.environ.get(LIBRARY_VARIABLE):
        if not Path(named).is_file():
            raise RuntimeLibraryError(
                f"{named}: no such file; {LIBRARY_VARIABLE} must name the custom-op library {LIBRARY_FILE}, or be unset"
            )
        return Path(named)
    beside = Path(__file__).with_name(LIBRARY_FILE)
    if beside.is_file():
        return beside
    for installed in _installed_files():
        if installed.is_file():
            return installed
    raise RuntimeLibraryError(
        f"{beside}: the custom-op library is not there, nor elsewhere in the installation; "
        f"install it by {_REINSTALL} (pip install -e . in a checkout), {_WITHOUT}"
    )


def _installed_files() -> list[Path]:
    """Where the installation says that it put the library."""
    try:
        files = importlib.metadata.files("mxcompile") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())) for file in files if file.name == LIBRARY_FILE]


def library_info() -> LibraryInfo:
    """Version and instruction set of the custom-op library; asked once a process.

    Raises:
        RuntimeLibraryError: It is missing, does not load (MXCOMPILE_ISA may name kernels that this machine has not),
            or is of another version than this package.
    """
    return _ask_library(custom_ops_library())


@functools.cache
def _ask_library(library: Path) -> LibraryInfo:
    """`library_info` of one file; an error is not remembered."""
    options = _options(threads=1)
    _register(options, library)
    try:
        session = InferenceSession(_library_info_model(), options, providers=_PROVIDERS)
        version, isa = (output.item() for output in session.run(None, {}))
    except _ERRORS as error:
        raise RuntimeLibraryError(
            f"{library}: does not answer, so it is of another version than mxcompile: {_text(error)}; {_REINSTALL}"
        ) from error
    package = importlib.metadata.version("mxcompile")
    if version != package:
        raise RuntimeLibraryError(f"{library}: is version {version}, but mxcompile is {package}; {_REINSTALL}")
    return LibraryInfo(version, isa)


def _library_info_model() -> bytes:
    """A serialized model of the one op LibraryInfo."""
    from onnx import TensorProto, helper

    names = ["version", "isa"]
    graph = helper.make_graph(
        [helper.make_node("LibraryInfo", [], names, domain=DOMAIN)],
        "library-info",
        [],
        [helper.make_tensor_value_info(name, TensorProto.STRING, []) for name in names],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    serialized: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return serialized


def create_session(
    model: str | os.PathLike[str] | bytes, *, threads: int | None = None, library: bool = True
) -> InferenceSession:
    """Opens a model in onnxruntime on the CPU, with the custom-op library registered.

    Args:
        model: An .onnx file, or a serialized model.
        threads: Threads within an operator; None takes onnxruntime's choice, one a physical core.
        library: Whether to register the library. Without it a compiled model runs by its function bodies: slower,
            the same numbers.

    Raises:
        RuntimeLibraryError: See `library_info`.
        ExportError: There is no such file, or it is no model.
        UnsupportedModelError: onnxruntime refuses the model.
        ValueError: threads is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; at least 1 is needed, or None for onnxruntime's choice")
    where = "the model"
    if not isinstance(model, bytes):
        where = os.fspath(model)
        if not Path(where).is_file():
            found = "is a folder" if Path(where).is_dir() else "no such file"
            raise ExportError(f"{where}: {found}; give an .onnx file")
    options = _options(threads)
    if library:
        library_info()
        _register(options, custom_ops_library())
    try:
        return InferenceSession(model if isinstance(model, bytes) else where, options, providers=_PROVIDERS)
    except (_state.InvalidProtobuf, _state.NoModel) as error:
        raise ExportError(f"{where}: is not an ONNX model; give an .onnx file") from error
    except _ERRORS as error:
        raise UnsupportedModelError(f"{where}: onnxruntime {ONNXRUNTIME_VERSION} refuses it: {_text(error)}") from error


@contextlib.contextmanager
def run_errors(where: str) -> Iterator[None]:
    """Turns errors of onnxruntime inside the context into `UnsupportedModelError`.

    Args:
        where: What is being run, the first words of the message.
    """
    try:
        yield
    except _ERRORS as error:
        raise UnsupportedModelError(f"{where}: onnxruntime {ONNXRUNTIME_VERSION} failed: {_text(error)}") from error


def _options(threads: int | None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _register(options: onnxruntime.SessionOptions, library: Path) -> None:
    try:
        options.register_custom_ops_library(str(library))
    except _ERRORS as error:
        raise RuntimeLibraryError(f"{library}: does not load: {_text(error)}") from error


def _text(error: Exception) -> str:
    """An error of onnxruntime on one line, without its code and name: ``[ONNXRuntimeError] : 1 : FAIL : text``."""
    text = " ".join(str(error).split())
    return text.split(" : ", 3)[-1] if text.startswith("[ONNXRuntimeError]") else text
