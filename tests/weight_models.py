"""Small ONNX models with weights, and what the tests of files look at."""

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnxruntime as ort

MIB = 1 << 20
# What Python and protobuf allocate for a small graph, with room: far below the weights of these tests.
GRAPH_BYTES = MIB

MODEL_TEXT = """
<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
g (float[n,32] x, bool c) => (float[n,32] y) <float[32,32] outer, int64[2] shape = {-1, 32}>
{
    h = local.Twice(x)
    r = Reshape(h, shape)
    z = If(c) <
        then_branch = then_graph () => (float[n,32] a) <float[32,32] inner> {
            t = MatMul(r, inner)
            a = MatMul(t, outer)
        },
        else_branch = else_graph () => (float[n,32] b) { b = MatMul(r, outer) }
    >
    y = Identity(z)
}
<domain: "local", opset_import: ["" : 21]>
Twice (v) => (w) { w = Add(v, v) }
"""


def tensor_proto(array: np.ndarray, name: str) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(array, name)


def model_with_subgraphs() -> onnx.ModelProto:
    """y = 2x [@ inner if c] @ outer: a function, an If, a weight in the main graph and one in a branch."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(MODEL_TEXT)
    (branches,) = (node for node in model.graph.node if node.op_type == "If")
    then_graph = next(a.g for a in branches.attribute if a.name == "then_branch")
    for graph, name in ((model.graph, "outer"), (then_graph, "inner")):
        del graph.initializer[:]
        graph.initializer.append(tensor_proto(rng.standard_normal((32, 32), np.float32), name))
    model.graph.initializer.append(tensor_proto(np.array([-1, 32]), "shape"))
    return model


def model_with_weights(*arrays: np.ndarray | onnx.TensorProto) -> onnx.ModelProto:
    """One Identity for each weight w0, w1, ...: every weight is an output."""
    weights = [a if isinstance(a, onnx.TensorProto) else tensor_proto(a, "") for a in arrays]
    nodes, outputs = [], []
    for index, weight in enumerate(weights):
        weight.name = f"w{index}"
        nodes.append(onnx.helper.make_node("Identity", [weight.name], [f"y{index}"]))
        outputs.append(onnx.helper.make_tensor_value_info(f"y{index}", weight.data_type, weight.dims))
    graph = onnx.helper.make_graph(nodes, "g", [], outputs, weights)
    return onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 21)])


def saved(model: onnx.ModelProto, path: Path, **options: object) -> Path:
    onnx.save(model, path, **options)
    return path


def run_branches(path: Path) -> list[np.ndarray]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.linspace(-1, 1, 96, dtype=np.float32).reshape(3, 32)
    return [session.run(None, {"x": x, "c": np.array(c)})[0] for c in (True, False)]


def external_tensors(model: ir.Model) -> dict[str, ir.ExternalTensor]:
    values = (v for g in model.graphs() for v in g.initializers.values())
    return {v.name: v.const_value for v in values if isinstance(v.const_value, ir.ExternalTensor)}


# Reading
