// What is known of the chosen node, or the list of the nodes of a block that are no products.

const FIELDS = [
  ["operator", node => node.op],
  ["layer", node => node.layer],
  ["block", node => node.block === null ? "outside" : String(node.block)],
  ["role", node => node.role],
  ["product", node => PRODUCTS[node.product]],
  ["weights, keys or values in", node => node.product && (node.weights ?? "float")],
  ["other operand in", node => node.product && (node.activations ?? "float")],
  ["left in float, for", node => node.skipped],
  ["length of the reduction, k", node => node.k === null ? null : WRITE.k(node.k)],
  ["output features, n", node => node.n === null ? null : WRITE.n(node.n)],
  ["stored bits a weight", node => node.bits === null ? null : WRITE.bits(node.bits)],
  ["SQNR of the result", node => node.sqnr_db === null ? null : WRITE.sqnr_db(node.sqnr_db)],
  ["KL divergence, this product alone", node => node.kl === null ? null : WRITE.kl(node.kl)],
  ["MACs for a token", node => node.macs === null ? null : WRITE.macs(node.macs)],
  ["energy for a token", node => node.energy_pj === null ? null : WRITE.energy_pj(node.energy_pj)],
];

function describeNode(node) {
  const list = make("dl", {});
  for (const [name, read] of FIELDS) {
    const value = read(node);
    if (value) list.append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  }
  return [make("h3", {}, node.name), list];
}

/** The other nodes of a row of the map; each is a button that leads to its figures. */
function listGroup(row) {
  const items = row.others.map(node => {
    const {colour} = paint(node, state.mode);
    const chip = make("span", {className: "chip", "aria-hidden": "true"});
    if (colour) chip.style.backgroundColor = colour;
    const energy = node.energy_pj === null ? "" : `, ${WRITE.energy_pj(node.energy_pj)}`;
    return make("li", {}, make("button", {type: "button", onclick: () => showNode(node.name)},
      chip, make("span", {}, node.name), make("small", {}, `${node.op}${energy}`)));
  });
  return [make("h3", {}, `Other nodes: ${row.title}`), make("ul", {className: "others"}, ...items)];
}

/** Opens a node from a list, where the focus would be lost with the list. */
function showNode(name) {
  choose({node: name, group: null});
  byId("details").focus();
}

function drawDetails() {
  const node = shownNode(), row = mapRows.flat().find(cell => !cell.node && cell.row.key === state.group)?.row;
  const content = node ? describeNode(node) : row ? listGroup(row)
    : [make("p", {className: "soft"}, state.node ? `${shownVariant().name} has no node ${state.node}.` : "Choose a node.")];
  byId("details").replaceChildren(...content);
  if (node) announce(`${node.name}: ${formatsOf(node) || node.op}`);
  drawHistograms(node);
}

function drawNotes() {
  byId("notes").replaceChildren(...shownVariant().notes.map(note => make("p", {className: "soft"}, note)));
}

function startDetails() {
  drawDetails();
  drawNotes();
  onChange(["node", "group", "variant"], drawDetails);
  onChange(["mode"], () => { if (state.group !== null) drawDetails(); });
  onChange(["variant"], drawNotes);
}
