"""Running compiled models: the custom-op library, and onnxruntime sessions with it registered.

The only file that imports onnxruntime. Its errors come out as this project's, in one line.
"""

import dataclasses
import functools
import importlib.metadata
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from mxcompile import mapped_model
from mxcompile.errors import ConfigError, ExportError, MxCompileError, RuntimeLibraryError, UnsupportedModelError
from mxcompile.ops import DOMAIN, OPSET, VERSION

LIBRARY_NAME: Final = "libmxcompile_ops.so"
LIBRARY_VARIABLE: Final = "MXCOMPILE_LIBRARY"
"""Environment variable that names a library to use in place of the installed one."""

CPU: Final = ("CPUExecutionProvider",)

IR_VERSION: Final = 10
"""The newest ONNX IR that onnxruntime 1.20 reads."""

_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
_NO_DATA_FOLDER = tuple(map(int, ort.__version__.split(".")[:2])) < (1, 21)
"""Before 1.21 onnxruntime looks for the data files of a model in memory in the current directory, but takes absolute
paths, which it refuses later."""

_FATAL = 4  # What onnxruntime logs below that it also raises, and a raised error is reported once, by us.
_NO_GRAPH = "does not have a graph"  # How onnxruntime 1.20 and 1.23 say it, with a general error.
_REINSTALL = "pip install --force-reinstall mxcompile"
_WITHOUT = "to run the model in a stock onnxruntime, slowly, pass library=False (mxcompile run --no-library)"

_ERRORS: Final[tuple[type[Exception], ...]] = tuple(
    error for error in vars(ort_state).values() if isinstance(error, type) and issubclass(error, Exception)
)
"""What onnxruntime raises; its errors have no base class of their own."""


@dataclasses.dataclass(frozen=True)
class LibraryInfo:
    """What a custom-op library says about itself.

    Attributes:
        path: The file.
        version: The version of mxcompile that it was built for.
        isa: The instruction set of its kernels on this machine, such as ``avx2``; MXCOMPILE_ISA chooses another.
    """

    path: Path
    version: str
    isa: str


def onnxruntime_version() -> str:
    """The version of the installed onnxruntime."""
    version: str = ort.__version__
    return version


def custom_ops_library() -> Path:
    """The shared library to give to ``SessionOptions.register_custom_ops_library``.

    It is looked for where the environment variable MXCOMPILE_LIBRARY says, if it is set; else beside this package;
    else among the installed files of mxcompile (of an editable installation they lie elsewhere).

    Raises:
        RuntimeLibraryError: It is at none of these places.
    """
    if named := os.environ.get(LIBRARY_VARIABLE):
        path = Path(named).expanduser()
        if not path.is_file():
            raise RuntimeLibraryError(f"{named}: no such file; {LIBRARY_VARIABLE} names it: correct or unset it")
        return path.absolute()
    beside = Path(__file__).parent / LIBRARY_NAME
    candidates = [beside, *_installed(LIBRARY_NAME)]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise RuntimeLibraryError(
            f"{beside}: the custom-op library is missing, this installation is incomplete: {_REINSTALL}; {_WITHOUT}"
        )
    return found


def _installed(name: str) -> list[Path]:
    try:
        files = importlib.metadata.files("mxcompile") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())) for file in files if file.name == name]


def library_info() -> LibraryInfo:
    """Loads the custom-op library and asks it what it is; the answer is kept.

    Raises:
        RuntimeLibraryError: It is missing, does not load, has another version than this package, or MXCOMPILE_ISA
            names an instruction set that it does not have here.
    """
    return _ask(custom_ops_library())


@functools.cache
def _ask(path: Path) -> LibraryInfo:
    """Runs a model of the one op LibraryInfo."""
    from onnx import TensorProto, helper

    outputs = [helper.make_tensor_value_info(name, TensorProto.STRING, []) for name in ("version", "isa")]
    node = helper.make_node("LibraryInfo", [], ["version", "isa"], domain=DOMAIN)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    graph = helper.make_graph([node], "library-info", [], outputs)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    try:
        session = ort.InferenceSession(model.SerializeToString(), _options(1, path), providers=CPU)
        version, isa = (str(value) for value in session.run(None, {}))
    except _ERRORS as error:
        raise RuntimeLibraryError(
            f"{path}: does not answer: {_reason(error)}; this is no library of mxcompile, or an old one: {_REINSTALL}"
        ) from error
    expected = importlib.metadata.version("mxcompile")
    if version != expected:
        raise RuntimeLibraryError(
            f"{path}: is the library of mxcompile {version}, but this is mxcompile {expected}: {_REINSTALL}"
            + (f", or unset {LIBRARY_VARIABLE}" if LIBRARY_VARIABLE in os.environ else "")
        )
    return LibraryInfo(path, version, isa)


def create_session(
    model: str | os.PathLike[str] | bytes,
    *,
    threads: int | None = None,
    library: bool = True,
    providers: Sequence[str] = CPU,
) -> ort.InferenceSession:
    """An onnxruntime session of a model, with the custom ops registered.

    With the library, big weights that stand inside the file are not copied but mapped from it (see `mapped_model`):
    replace the file of an open session, do not write into it. ``compile`` and the command line replace files.

    Args:
        model: An .onnx file, or the bytes of one.
        threads: Threads that one operator may use; None leaves that to onnxruntime (all cores).
        library: Whether to use the custom-op library; otherwise the ops run as the bodies in the model.
        providers: onnxruntime's execution providers; the custom ops run on the CPU.

    Raises:
        RuntimeLibraryError: See `library_info`.
        ExportError: The file is missing or holds no ONNX model.
        UnsupportedModelError: onnxruntime refuses the model.
        ConfigError: Not a number of threads, or a provider that this onnxruntime does not have.
    """
    where = "the model" if isinstance(model, bytes) else os.fspath(model)
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}: at least 1 is needed, or none for all cores")
    if unknown := set(providers) - set(available := ort.get_available_providers()):
        raise ConfigError(f"no provider {', '.join(sorted(unknown))}: this onnxruntime has {', '.join(available)}")
    if not isinstance(model, bytes):
        _check_file(Path(model))
    shared_library = library_info().path if library else None
    if shared_library is not None and not isinstance(model, bytes):
        session = _mapped_session(Path(model), _options(threads, shared_library), list(providers))
        if session is not None:
            return session
    options = _options(threads, shared_library)
    try:
        return ort.InferenceSession(model if isinstance(model, bytes) else where, options, providers=list(providers))
    except _ERRORS as error:
        reason = _reason(error)
        if isinstance(error, (ort_state.InvalidProtobuf, ort_state.InvalidArgument)) or _NO_GRAPH in reason:
            raise ExportError(
                f"{where}: cannot be read as an ONNX model: {reason}; compile or copy it again"
            ) from error
        raise UnsupportedModelError(
            f"{where}: onnxruntime {ort.__version__} cannot load it: {reason}; compile it again, and keep its "
            "data files (.data) beside it"
        ) from error


def _mapped_session(path: Path, options: ort.SessionOptions, providers: list[str]) -> ort.InferenceSession | None:
    """A session that maps the big weights from the file; None where there is no gain in that, or an error.

    The file itself then gives the session, or the message on what is wrong with it.
    """
    mapped = mapped_model.read_mapped(path, absolute=_NO_DATA_FOLDER)
    if mapped is None:
        return None
    if not _NO_DATA_FOLDER:
        options.add_session_config_entry(_DATA_FOLDER, str(mapped.file.parent))
    try:
        session = ort.InferenceSession(mapped.content, options, providers=providers)
    except _ERRORS:
        return None
    return session if mapped.is_current() else None


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise ExportError(f"{path}: is a folder; give the .onnx file in it")
    if not path.is_file():
        raise ExportError(f"{path}: no such file; give the .onnx file that `mxcompile MODEL -o FILE` wrote")


def _options(threads: int | None, library: Path | None) -> ort.SessionOptions:
    """Options with the library registered; that loads it, and the library checks MXCOMPILE_ISA."""
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    # Bodies are many small operators, and planning which may reuse whose memory takes time with the square of their
    # number: minutes for a real model. Without the plan the arena reuses memory as it comes.
    options.enable_mem_reuse = library is not None
    if library is not None:
        try:
            options.register_custom_ops_library(str(library))
        except _ERRORS as error:
            reason = _reason(error).removeprefix("mxcompile: ")
            if "MXCOMPILE_ISA" in reason:
                raise RuntimeLibraryError(reason) from error
            raise RuntimeLibraryError(f"{library}: does not load: {reason}: {_REINSTALL}; {_WITHOUT}") from error
    return options


def to_value(array: npt.NDArray[Any]) -> ort.OrtValue:
    """A tensor as onnxruntime holds it, a copy of the array."""
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def run(
    session: ort.InferenceSession, outputs: Iterable[str], feeds: Mapping[str, ort.OrtValue]
) -> dict[str, ort.OrtValue]:
    """Runs a session on tensors that stay in onnxruntime; nothing is copied to NumPy and back.

    Args:
        session: The session.
        outputs: Names of the outputs to give back.
        feeds: The inputs by name.

    Raises:
        MxCompileError: An operator failed; the message is onnxruntime's.
    """
    names = list(outputs)
    try:
        return dict(zip(names, session.run_with_ort_values(names, feeds), strict=True))
    except _ERRORS as error:
        shapes = ", ".join(f"{name} {value.shape()}" for name, value in feeds.items())
        raise MxCompileError(f"the model failed on {shapes}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The message of onnxruntime on one line, without prefix and file name."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))
    text = re.sub(r"^/\S+\.cc:\d+ .*?\) (?=\S)", "", text)  # a place in onnxruntime's sources, and the function there
    return re.sub(r"^Load model from .*? failed: ?", "", text).rstrip(".")
