// The data of the page, unpacked: mxcompile/page/packing.py says how it is packed.

const TEXTS = ["name", "op", "layer", "role", "product", "weights", "activations", "skipped"];
const packed = JSON.parse(document.getElementById("page-data").textContent);

/** A column with null where a cell is empty. */
function unpackColumn(column, size) {
  if (Array.isArray(column)) return column;
  const cells = new Array(size).fill(null);
  column.at.forEach((at, index) => { cells[at] = column.cells[index]; });
  return cells;
}

/** Nodes as objects; `index` is the place in the graph. */
function unpackNodes(variant) {
  const columns = {...packed.variants[0].nodes, ...variant.nodes};
  const nodes = Array.from({length: variant.size}, (_, index) => ({index}));
  for (const [key, column] of Object.entries(columns)) {
    const cells = unpackColumn(column, variant.size);
    nodes.forEach((node, index) => {
      const cell = cells[index];
      node[key] = TEXTS.includes(key) && cell !== null ? packed.strings[cell] : cell;
    });
  }
  return nodes;
}

function unpackEdges(edges, bins) {
  if (Array.isArray(edges)) return edges;
  const unpacked = Array.from({length: bins}, (_, index) => edges.first + index * edges.step);
  return [...unpacked, edges.last];
}

function unpackHistogram(each) {
  return {
    ...each,
    layer: packed.strings[each.layer],
    operand: packed.strings[each.operand],
    format: packed.strings[each.format],
    edges: unpackEdges(each.edges, each.counts.length),
    levels: packed.grids[each.levels],
  };
}

const variants = packed.variants.map(variant => ({
  name: variant.name,
  notes: variant.notes,
  nodes: unpackNodes(variant),
  histograms: variant.histograms.map(unpackHistogram),
}));
const points = packed.points;

const OPERANDS = {linear: ["weights", "activations"], qk: ["queries", "keys"], pv: ["probabilities", "values"]};

/** Histograms of a node's operands; products of queries and of probabilities may lie in one layer. */
function histogramsOf(variant, node) {
  if (!node?.product) return [];
  const own = variant.histograms.filter(each => each.layer === node.layer || each.layer === node.name);
  return OPERANDS[node.product].flatMap(operand => own.filter(each => each.operand === operand));
}
