// Where nodes lie on the map: a row for each block, a column for each product of a block, all other nodes at the end.

// Columns of a map at least, so that products outside of blocks have room for their names.
const FEWEST_COLUMNS = 6;
// Columns that a product outside of blocks takes.
const OUTSIDE_SPAN = 2;
const OUTSIDE = {before: "before the blocks", between: "between the blocks", after: "after the blocks", all: "the graph"};

/** Names of a block's products; a name that comes again in a block is numbered. */
function rolesOf(products) {
  const seen = new Map();
  return products.map(node => {
    const times = (seen.get(node.role) ?? 0) + 1;
    seen.set(node.role, times);
    return times > 1 ? `${node.role} #${times}` : node.role;
  });
}

/** Roles in the order of the graph; one that only some blocks have stands behind its neighbour. */
function orderedRoles(blocks) {
  const roles = [];
  for (const {names} of blocks) {
    let behind = -1;
    for (const name of names) {
      const at = roles.indexOf(name);
      if (at < 0) roles.splice(behind + 1, 0, name);
      behind = at < 0 ? behind + 1 : at;
    }
  }
  return roles;
}

/** The shortest ends of paths that tell all of them apart. */
function shortNames(paths) {
  return paths.map(path => {
    const parts = path.split("/");
    const ends = parts.map((_, index) => parts.slice(parts.length - 1 - index).join("/"));
    return ends.find(end => paths.filter(other => other === end || other.endsWith(`/${end}`)).length === 1) ?? path;
  });
}

/** Rows of nodes that lie in no block: as many products in each as there is room for. */
function outsideRows(label, nodes, columns) {
  const products = nodes.filter(node => node.product), others = nodes.filter(node => !node.product);
  const room = Math.max(1, Math.floor(columns / OUTSIDE_SPAN)), rows = [];
  for (let from = 0; from < Math.max(products.length, 1); from += room) {
    const cells = products.slice(from, from + room).map(
      (node, index) => ({node, column: index * OUTSIDE_SPAN, span: OUTSIDE_SPAN}));
    rows.push({key: `${label} ${from}`, label: from ? "" : label, title: OUTSIDE[label], cells, others: from ? [] : others});
  }
  return nodes.length ? rows : [];
}

function blocksOf(nodes) {
  const members = new Map();
  for (const node of nodes) {
    if (node.block === null) continue;
    if (!members.has(node.block)) members.set(node.block, []);
    members.get(node.block).push(node);
  }
  return [...members].sort(([a], [b]) => a - b).map(([block, inside]) => {
    const products = inside.filter(node => node.product);
    return {block, products, names: rolesOf(products), others: inside.filter(node => !node.product)};
  });
}

function layOut(nodes) {
  const blocks = blocksOf(nodes), roles = orderedRoles(blocks);
  const columns = Math.max(roles.length, FEWEST_COLUMNS);
  const inBlocks = nodes.filter(node => node.block !== null);
  const outside = nodes.filter(node => node.block === null);
  const first = inBlocks[0]?.index, last = inBlocks.at(-1)?.index;
  const rows = blocks.map(({block, products, names, others}) => ({
    key: String(block), label: String(block), title: `block ${block}`, others,
    cells: products.map((node, index) => ({node, column: roles.indexOf(names[index]), span: 1}))
      .sort((a, b) => a.column - b.column),
  }));
  if (!inBlocks.length) return {columns, roles, names: [], rows: outsideRows("all", nodes, columns)};
  return {columns, roles, names: shortNames(roles), rows: [
    ...outsideRows("before", outside.filter(node => node.index < first), columns),
    ...outsideRows("between", outside.filter(node => node.index > first && node.index < last), columns),
    ...rows,
    ...outsideRows("after", outside.filter(node => node.index > last), columns),
  ]};
}
