"""Writing ONNX files without their weights in memory."""

import resource
import tracemalloc

import ml_dtypes
import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from weight_models import (
    GRAPH_BYTES,
    MIB,
    external_tensors,
    model_with_subgraphs,
    model_with_weights,
    run_branches,
    saved,
)

from mxcompile import onnx_file
from mxcompile.errors import ExportError


@pytest.mark.parametrize("max_inline_bytes", [onnx_file.MAX_INLINE_BYTES, 0], ids=["inline", "external"])
def test_subgraphs_and_functions_survive(tmp_path, max_inline_bytes):
    source = saved(model_with_subgraphs(), tmp_path / "m.onnx")
    out = tmp_path / "out.onnx"
    onnx_file.write_model(onnx_file.read_model(source), out, max_inline_bytes=max_inline_bytes)
    onnx.checker.check_model(out, full_check=True)
    assert [f.name for f in onnx.load(out).functions] == ["Twice"]
    assert ir.load(out).graph.initializers["outer"].const_value.numpy().shape == (32, 32)
    for expected, actual in zip(run_branches(source), run_branches(out), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("nbytes", [0, 1, 1023, 1024, 1025, 16_383, 16_384, 70_000, 2_097_152])
def test_the_file_is_what_protobuf_itself_would_write(tmp_path, nbytes):
    """Sizes on both sides of the streaming threshold and of every length of a length prefix."""
    expected = model_with_weights(np.full(nbytes, 7, np.uint8), np.arange(3), np.ones(600, np.float32))
    out = tmp_path / "out.onnx"
    onnx_file.write_model(ir.from_proto(expected), out)
    written = onnx.load(out)
    assert out.read_bytes() == written.SerializeToString(deterministic=True)
    assert list(written.graph.initializer) == list(expected.graph.initializer)


@pytest.mark.parametrize("producer", ["", "x", "xx", "xxx"])
def test_big_weights_stand_at_multiples_of_their_element(tmp_path, producer):
    """Behind a number of bytes with any remainder."""
    sizes = (onnx_file.MAPPED_BYTES, onnx_file.MAPPED_BYTES + 2, 1 << 18)
    dtypes = (np.float32, np.float16, np.float64, ml_dtypes.bfloat16, np.int64, np.uint8, np.complex128)
    arrays = [np.full(size // 2, 1, dtype) for size in sizes for dtype in dtypes]
    expected = model_with_weights(*arrays, np.full(17, 1, np.uint8))
    expected.producer_name = producer
    out = tmp_path / "out.onnx"
    onnx_file.write_model(ir.from_proto(expected), out)
    assert list(onnx.load(out).graph.initializer) == list(expected.graph.initializer)
    big = [t for t in external_tensors(onnx_file.read_model(out)).values() if t.nbytes >= onnx_file.MAPPED_BYTES]
    assert len(big) > len(arrays) // 2
    for tensor in big:
        if tensor.dtype.itemsize <= 8:
            assert tensor.offset % tensor.dtype.itemsize == 0, tensor.name


def test_every_dtype_survives(tmp_path):
    rng = np.random.default_rng(0)
    floats = rng.standard_normal(3001).astype(np.float32)
    arrays = [floats.astype(d) for d in (np.float16, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2)]
    arrays += [(floats * 3).astype(d) for d in (np.int8, np.uint16, np.int32, np.int64, bool, np.complex64)]
    arrays += [np.clip(floats * 3, -8, 7).astype(ml_dtypes.int4), abs(floats).astype(ml_dtypes.uint4)]
    expected = model_with_weights(*arrays, np.array(["x" * 3000, "é"], dtype=object))
    for read in (ir.from_proto, lambda m: onnx_file.read_model(saved(m, tmp_path / "m.onnx"))):
        onnx_file.write_model(read(expected), tmp_path / "out.onnx")
        assert list(onnx.load(tmp_path / "out.onnx").graph.initializer) == list(expected.graph.initializer)


def test_a_non_contiguous_array_is_written_in_row_order(tmp_path):
    array = np.arange(1200, dtype=np.float32).reshape(30, 40).T
    model = ir.from_proto(model_with_weights(np.zeros((40, 30), np.float32)))
    model.graph.initializers["w0"].const_value = ir.Tensor(array)
    onnx_file.write_model(model, tmp_path / "out.onnx")
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(onnx.load(tmp_path / "out.onnx").graph.initializer[0]), array
    )


def test_large_models_get_an_aligned_data_file_beside_them(tmp_path):
    arrays = [np.arange(n, dtype=np.float32) for n in (5000, 3, 700)]
    out = tmp_path / "out.onnx"
    onnx_file.write_model(ir.from_proto(model_with_weights(*arrays)), out, max_inline_bytes=10_000)
    weights = onnx.load(out, load_external_data=False).graph.initializer
    places = [{e.key: e.value for e in w.external_data} for w in weights]
    assert places == [
        {"location": "out.onnx.data", "offset": "0", "length": "20000"},
        {},
        {"location": "out.onnx.data", "offset": "20480", "length": "2800"},
    ]
    for weight, array in zip(onnx.load(out).graph.initializer, arrays, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), array)
    assert sorted(external_tensors(onnx_file.read_model(out))) == ["w0", "w2"]


def test_the_model_is_unchanged_and_its_weights_are_never_loaded(tmp_path):
    model = onnx_file.read_model(saved(model_with_subgraphs(), tmp_path / "m.onnx"))
    before = external_tensors(model)
    onnx_file.write_model(model, tmp_path / "out.onnx")
    after = external_tensors(model)
    assert all(after[name] is before[name] and after[name].raw is None for name in before)


def test_lazy_weights_are_evaluated_one_at_a_time(tmp_path):
    count, shape = 8, ir.Shape([MIB])
    model = ir.from_proto(model_with_weights(*(np.zeros(MIB, np.float32) for _ in range(count))))
    for index, value in enumerate(model.graph.initializers.values()):
        value.const_value = ir.LazyTensor(
            lambda index=index: ir.Tensor(np.full(MIB, index, np.float32)), ir.DataType.FLOAT, shape
        )
    tracemalloc.start()
    try:
        onnx_file.write_model(model, tmp_path / "out.onnx")
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB + GRAPH_BYTES
    finally:
        tracemalloc.stop()
    last = onnx.load(tmp_path / "out.onnx").graph.initializer[-1]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(last), np.full(MIB, count - 1, np.float32))


def test_a_model_can_replace_the_file_it_was_read_from(tmp_path):
    path = saved(model_with_subgraphs(), tmp_path / "m.onnx")
    expected = run_branches(path)
    onnx_file.write_model(onnx_file.read_model(path), path)
    for new, old in zip(run_branches(path), expected, strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("max_inline_bytes", [onnx_file.MAX_INLINE_BYTES, 0], ids=["inline", "external"])
def test_a_full_disk_leaves_the_old_file_and_no_temporaries(tmp_path, max_inline_bytes):
    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")
    model = ir.from_proto(model_with_weights(np.ones(MIB, np.float32)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))  # the fourth part of the weight
    try:
        with pytest.raises(ExportError, match=r"out\.onnx: could not be written: .*nothing was left behind"):
            onnx_file.write_model(model, out, max_inline_bytes=max_inline_bytes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]
    assert out.read_bytes() == b"old"


def test_an_interrupt_leaves_no_temporaries(tmp_path):
    def interrupt() -> ir.Tensor:
        raise KeyboardInterrupt

    model = ir.from_proto(model_with_weights(np.ones(MIB, np.float32)))
    model.graph.initializers["w0"].const_value = ir.LazyTensor(interrupt, ir.DataType.FLOAT, ir.Shape([MIB]))
    with pytest.raises(KeyboardInterrupt):
        onnx_file.write_model(model, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_a_weight_of_another_size_than_its_shape_is_a_bug_and_leaves_nothing(tmp_path):
    model = ir.from_proto(model_with_weights(np.ones(MIB, np.float32)))
    model.graph.initializers["w0"].const_value = ir.LazyTensor(
        lambda: ir.Tensor(np.ones(3, np.float32)), ir.DataType.FLOAT, ir.Shape([MIB])
    )
    with pytest.raises(ValueError, match="`w0`: 12 bytes, its shape needs 4194304"):
        onnx_file.write_model(model, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_hold_the_file_are_refused(tmp_path):
    model = ir.from_proto(model_with_weights(np.ones(4, np.float32)))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match="is a directory"):
        onnx_file.write_model(model, tmp_path)
    for parent in ("absent", "file"):
        with pytest.raises(ExportError, match=f"there is no directory .*{parent}; create it first"):
            onnx_file.write_model(model, tmp_path / parent / "out.onnx")


def test_the_file_gets_the_permissions_of_any_new_file(tmp_path):
    onnx_file.write_model(ir.from_proto(model_with_weights(np.ones(4, np.float32))), tmp_path / "out.onnx")
    (tmp_path / "plain").touch()
    assert (tmp_path / "out.onnx").stat().st_mode == (tmp_path / "plain").stat().st_mode
