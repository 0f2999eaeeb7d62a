"""pack-cache: a key-value cache of codes and scales in place of one of floats."""

import dataclasses
import functools
import json
from collections.abc import Mapping, MutableSequence
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir

from mxcompile.graph_writer import GraphWriter
from mxcompile.kv_cache import CODES, HEAD_DIM, METADATA, SCALES, SKIPPED, TAIL, CacheFormat, describe, part_of
from mxcompile.ops import DOMAIN, MATMUL
from mxcompile.passes.analysis.cache import CacheTensor, find_cache
from mxcompile.passes.insert_attention import InsertAttention
from mxcompile.passes.metadata import (
    ATTENTION,
    LAYER,
    PASSES,
    WEIGHTS,
    provenance,
    record_pass,
    recorded_passes,
    set_metadata,
)
from mxcompile.passes.rewriting import UniqueNames, remove_unused

_END: Final = int(np.iinfo(np.int64).max)
"""The end of an axis, whatever its size, for Slice."""


@dataclasses.dataclass(frozen=True)
class PackCache(ir.passes.InPlacePass):
    """Replaces inputs and outputs of the cache, float keys and values, by what QuantizeBlock makes of them.

    A tensor is packed if ``present = Concat(past, new)`` and only quantizers and Shapes read present (`find_cache`);
    another one stays in float, with the reason in the model's metadata.

    1. Blocks along head_dim (keys; values with token blocking): inputs ``past.codes`` and ``past.scales``. The new
       tokens alone are quantized, and their codes and scales put behind the past ones. The results are outputs.
    2. Blocks along the sequence (values): inputs ``past.codes`` and ``past.scales`` of complete blocks, and
       ``past.tail``, the tokens behind them, which are not quantized. The new tokens are put behind the tail, the whole
       is quantized, its last block incomplete or not, and put behind the past codes and scales. The product reads
       that: exactly what quantizing the whole sequence gives. Of it, complete blocks and a new tail are outputs.
    3. Where blocks end is computed once for all tensors of the same length and block size.
    4. Shape of past or present is put together from the shapes of the parts.
    5. Values along the sequence in a format with one scale a row, such as dint4, get blocks of 32 tokens instead
       (dint4_b32): a scale of the whole sequence would change with every token.
    6. The parts of a tensor stand in its place among inputs and outputs, in the order codes, scales, tail.

    So no complete block is ever quantized again, and but for rule 5 the results are those of the float cache, bit for
    bit. Walks the main graph, whose inputs and outputs the cache is.
    """

    name: ClassVar[str] = "pack-cache"

    def requires(self, model: ir.Model) -> None:
        """The selected attention products read through quantizers."""
        for node in model.graph.all_nodes():
            selected = (node.op_type, node.domain) == ("MatMul", "") and node.metadata_props.keys() >= {
                ATTENTION,
                WEIGHTS,
            }
            if selected and InsertAttention.name not in recorded_passes(node):
                raise ir.passes.PreconditionError(f"MatMul {node.name}: run {InsertAttention.name} before {self.name}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Packs what can be packed."""
        found, reasons = find_cache(model)
        metadata: dict[str, str | None] = {SKIPPED: json.dumps(reasons)} if reasons else {}
        if found:
            packed = {tensor.name: tensor.packing for tensor in found}
            inputs = [value.name for value in model.graph.inputs if value.name in packed.keys() | reasons.keys()]
            metadata[METADATA] = describe({name: packed.get(name) for name in inputs if name is not None})
            packer = _Packer(model, self.name)
            for tensor in found:
                packer.pack(tensor)
            packer.finish()
        return ir.passes.PassResult(model, set_metadata(model.metadata_props, metadata) or bool(found))


class _Ends:
    """Rule 3: how far the complete blocks of all tokens reach, each value int64 ``[1]`` and written when asked for."""

    def __init__(self, op: GraphWriter, scales: ir.Value, tail: ir.Value, rows: ir.Value, packing: CacheFormat) -> None:
        """Of past scales, the old tail, the old tail with the new tokens behind it, and the format."""
        self._op, self._scales, self._tail, self._rows, self._packing = op, scales, tail, rows, packing

    @functools.cached_property
    def blocks(self) -> ir.Value:
        """Complete blocks of all tokens."""
        return self._op.op("Add", [self._past_blocks, self._new_blocks])

    @functools.cached_property
    def bytes(self) -> ir.Value:
        """Bytes of their codes."""
        return self._op.op("Mul", [self.blocks, self._op.vector([self._packing.block_bytes])])

    @functools.cached_property
    def cut(self) -> ir.Value:
        """Where the new tail begins in the old tail and the new tokens."""
        return self._op.op("Mul", [self._new_blocks, self._block])

    @functools.cached_property
    def tokens(self) -> ir.Value:
        """All tokens."""
        return self._op.op("Add", [self._past_complete, self._length])

    @functools.cached_property
    def past_tokens(self) -> ir.Value:
        """The past tokens."""
        tail = self._op.Shape(self._tail, start=2, end=3)
        return self._op.op("Add", [self._past_complete, tail])

    @functools.cached_property
    def _block(self) -> ir.Value:
        return self._op.vector([self._packing.format.block_size])

    @functools.cached_property
    def _length(self) -> ir.Value:
        """Tokens of the old tail and new ones."""
        return self._op.op("Shape", [self._rows], {"start": 2, "end": 3})

    @functools.cached_property
    def _new_blocks(self) -> ir.Value:
        return self._op.op("Div", [self._length, self._block])

    @functools.cached_property
    def _past_blocks(self) -> ir.Value:
        return self._op.op("Shape", [self._scales], {"start": 3, "end": 4})

    @functools.cached_property
    def _past_complete(self) -> ir.Value:
        return self._op.op("Mul", [self._past_blocks, self._block])


class _Packer:
    """One run of the pass over a model; `finish` puts everything into the graph in a valid order."""

    def __init__(self, model: ir.Model, pass_name: str) -> None:
        self._graph = model.graph
        self._names = UniqueNames(model)
        self._pass = pass_name
        self._common = GraphWriter()
        self._ends: dict[tuple[object, ...], _Ends] = {}

    def pack(self, tensor: CacheTensor) -> None:
        """Rewrites one tensor."""
        first, *others = tensor.quantizers
        for other in others:
            for old, new in zip(other.outputs, first.outputs, strict=True):
                old.replace_all_uses_with(new)
            remove_unused(other.outputs[0])
        record_pass(first, self._pass)
        self._set_format(first, tensor.packing.format.name)
        name = tensor.present.name or ""
        past, described = self._parts(tensor, tensor.past), self._parts(tensor, tensor.present)
        ends = None if tensor.packing.axis == HEAD_DIM else self._ends_of(tensor, past[SCALES], past[TAIL])
        op = GraphWriter()
        present = self._tokens(op, tensor, past) if ends is None else self._blocks(op, tensor, past, ends)
        for part, value in present.items():
            value.name, value.type, value.shape = described[part].name, described[part].type, described[part].shape
        self._place(op, first, name, provenance(first, self._pass))
        for node in tensor.past_shapes:
            self._replace_shape(node, past[CODES], None if ends is None else ends.past_tokens, tensor.head_dim)
        for node in tensor.present_shapes:
            self._replace_shape(node, present[CODES], None if ends is None else ends.tokens, tensor.head_dim)
        self._exchange(self._graph.inputs, tensor.past, past)
        self._exchange(self._graph.outputs, tensor.present, present)
        if ends is None:
            self._graph.remove(tensor.append, safe=True)

    def finish(self) -> None:
        """Puts the common values before everything; then sorts the graph."""
        self._place(self._common, next(iter(self._graph)), "kv_cache", {PASSES: self._pass})
        self._graph.sort()

    def _parts(self, tensor: CacheTensor, value: ir.Value) -> dict[str, ir.Value]:
        """New values for the parts of ``past`` or ``present``, with names, types and shapes."""
        assert value.shape is not None  # by find_cache
        outer = [dim.value if isinstance(dim, ir.SymbolicDim) else dim for dim in value.shape][:3]
        parts = {}
        for part, dims in tensor.packing.shapes(outer, tensor.head_dim).items():
            dtype = tensor.past.dtype if part == TAIL else ir.DataType.UINT8
            assert dtype is not None  # inputs have a type
            name = part_of(value.name or "", part)
            parts[part] = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(dims))
        return parts

    def _set_format(self, quantizer: ir.Node, fmt: str) -> None:
        """Rule 5: the format of a quantizer and of what reads its codes."""
        old = quantizer.attributes["format"].as_string()
        if old == fmt:
            return
        quantizer.attributes["format"] = ir.AttrString("format", fmt)
        for reader, _ in quantizer.outputs[0].uses():
            if reader.domain == DOMAIN:
                key = "b_format" if reader.op_type == MATMUL else "format"
                reader.attributes[key] = ir.AttrString(key, fmt)
        place = [quantizer.metadata_props.get(key) for key in (LAYER, ATTENTION)]
        for node in self._graph:
            here = [node.metadata_props.get(key) for key in (LAYER, ATTENTION)]
            if here == place and node.metadata_props.get(WEIGHTS) == old:
                node.metadata_props[WEIGHTS] = fmt

    def _exchange(self, values: MutableSequence[ir.Value], old: ir.Value, new: Mapping[str, ir.Value]) -> None:
        """Rule 6."""
        index = values.index(old)
        values[index : index + 1] = list(new.values())

    def _tokens(self, op: GraphWriter, tensor: CacheTensor, past: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
        """Rule 1: the parts of present."""
        quantizer = tensor.quantizers[0]
        quantizer.replace_input_with(0, tensor.new)
        return self._append(op, quantizer, past, axis=2)

    def _blocks(
        self, op: GraphWriter, tensor: CacheTensor, past: Mapping[str, ir.Value], ends: _Ends
    ) -> dict[str, ir.Value]:
        """Rule 2: the parts of present, whose own place the old tail and the new tokens take."""
        quantizer, rows = tensor.quantizers[0], tensor.present
        tensor.append.replace_input_with(0, past[TAIL])
        record_pass(tensor.append, self._pass)
        name = rows.name
        rows.name = self._names.take(f"{name}.{TAIL}.whole")
        rows.shape = past[TAIL].shape and ir.Shape([*past[TAIL].shape[:2], None, tensor.head_dim])
        for each in quantizer.inputs:  # its Transpose
            assert each is not None
            each.shape = None
        whole = self._append(op, quantizer, past, axis=3)
        for part, value in whole.items():
            value.name = self._names.take(f"{name}.{part}.whole")
        first, last = op.vector([0]), op.vector([3])
        return {
            CODES: op.Slice(whole[CODES], first, ends.bytes, last),
            SCALES: op.Slice(whole[SCALES], first, ends.blocks, last),
            TAIL: op.Slice(rows, ends.cut, op.vector([_END]), op.vector([2])),
        }

    def _append(
        self, op: GraphWriter, quantizer: ir.Node, past: Mapping[str, ir.Value], axis: int
    ) -> dict[str, ir.Value]:
        """Codes and scales of the quantizer behind the past ones; its readers read that."""
        whole = {}
        for part, new in zip((CODES, SCALES), quantizer.outputs, strict=True):
            new.shape = None  # no longer of all tokens
            whole[part] = op.op("Concat", [past[part], None], {"axis": axis})
            new.replace_all_uses_with(whole[part])
            concat = whole[part].producer()
            assert concat is not None  # just written
            concat.replace_input_with(1, new)
        return whole

    def _ends_of(self, tensor: CacheTensor, scales: ir.Value, tail: ir.Value) -> _Ends:
        """Rule 3: tensors whose past tokens are called the same have the same number of them."""
        assert tensor.past.shape is not None  # by find_cache
        tokens = tensor.past.shape[2]
        name = tokens if isinstance(tokens, int) else tokens.value
        key = (tensor.name if name is None else name, tensor.packing.format.block_size, tensor.packing.block_bytes)
        if key not in self._ends:
            self._ends[key] = _Ends(self._common, scales, tail, tensor.present, tensor.packing)
        return self._ends[key]

    def _replace_shape(self, node: ir.Node, codes: ir.Value, tokens: ir.Value | None, head_dim: int) -> None:
        """Batch, heads and, if they are not given, tokens come from the codes."""
        start, end, _ = slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", _END)).indices(4)
        known = 3 if tokens is None else 2
        op = GraphWriter()
        pieces = [op.Shape(codes, start=start, end=min(end, known))] if start < min(end, known) else []
        pieces += [tokens] if tokens is not None and start <= 2 < end else []
        pieces += [op.vector([head_dim])] if start <= 3 < end else []
        old = node.outputs[0]
        alone = len(pieces) == 1 and pieces[0] is not tokens
        new = pieces[0] if alone else op.op("Concat", pieces or [op.vector([])], {"axis": 0})
        self._place(op, node, node.name or "", {PASSES: self._pass})
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name, new.type, new.shape = old.name, old.type, old.shape
        assert node.graph is not None  # it reads the cache there
        node.graph.remove(node, safe=True)

    def _place(self, op: GraphWriter, before: ir.Node, name: str, metadata: dict[str, str]) -> None:
        """Names the written nodes and their results, and puts them before a node, to be sorted later."""
        assert before.graph is not None  # it was found there
        for node in op.nodes:
            (output,) = node.outputs
            output.name = output.name or self._names.take(f"{name}.{node.op_type}")
            node.name = output.name
            node.metadata_props.update(metadata)
        before.graph.insert_before(before, op.nodes)
