// The map: a grid of buttons, one tab stop; arrow keys move in it, Enter opens what is under the focus.

/** Buttons of each row, in the order of their columns, with what they stand for. */
let mapRows = [];

function cellTitle(node, row) {
  const figure = state.mode === "format" ? formatsOf(node) : WRITE[state.mode](node[state.mode]);
  return `${row.title}, ${node.role}: ${figure}${node.skipped ? `, left in float: ${node.skipped}` : ""}`;
}

function colourCell(cell) {
  const {button, node, row, span} = cell, {colour, label, hatched} = paint(node, state.mode);
  button.classList.toggle("hatched", hatched);
  button.style.backgroundColor = colour ?? "";
  button.style.color = colour ? inkOn(colour) : "";
  button.setAttribute("aria-label", cellTitle(node, row));
  button.title = cellTitle(node, row);
  const name = span > 1 ? make("small", {}, node.role) : null;
  button.replaceChildren(...[make("span", {}, label), name].filter(Boolean));
}

/** Nodes that are no products: a strip with a piece for each, in its colour. */
function colourOthers({button, row}) {
  const colours = row.others.map(node => paint(node, state.mode).colour ?? "var(--line)");
  const share = 100 / colours.length;
  const stops = colours.map((colour, index) => `${colour} ${index * share}% ${(index + 1) * share}%`);
  const strip = make("i", {className: "pieces", "aria-hidden": "true"});
  strip.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
  const title = `${row.title}: ${row.others.length} other node${row.others.length > 1 ? "s" : ""}`;
  button.setAttribute("aria-label", title);
  button.title = title;
  button.replaceChildren(make("span", {}, `+${row.others.length}`), strip);
}

function makeCell(properties) {
  const button = make("button", {type: "button", tabIndex: -1, onclick: () => openCell(cell)});
  const cell = {...properties, button};
  cell.holder = make("td", {role: "gridcell", colSpan: cell.span}, button);
  return cell;
}

function openCell(cell) {
  focusable(cell.button);
  choose(cell.node ? {node: cell.node.name, group: null} : {node: null, group: cell.row.key});
}

/** The cells of a row, and empty fields where it has no product. */
function makeRow(row, columns) {
  const cells = [], fields = [];
  let at = 0;
  for (const {node, column, span} of row.cells) {
    if (column > at) fields.push(make("td", {role: "gridcell", colSpan: column - at}));
    const cell = makeCell({node, row, column, span});
    cells.push(cell);
    fields.push(cell.holder);
    at = column + span;
  }
  if (columns > at) fields.push(make("td", {role: "gridcell", colSpan: columns - at}));
  if (row.others.length) {
    const cell = makeCell({node: null, row, column: columns, span: 1});
    cells.push(cell);
    fields.push(cell.holder);
  } else {
    fields.push(make("td", {role: "gridcell"}));
  }
  const head = make("th", {scope: "row", role: "rowheader", title: row.title}, row.label);
  return {cells, element: make("tr", {role: "row"}, head, ...fields)};
}

function drawMap() {
  const {columns, roles, names, rows} = layOut(shownVariant().nodes);
  const heads = names.map((name, index) => make("th", {scope: "col", role: "columnheader", title: roles[index]},
    make("span", {}, name)));
  const rest = columns - roles.length;
  if (rest) heads.push(make("td", {role: "gridcell", colSpan: rest}));
  heads.push(make("th", {scope: "col", role: "columnheader"}, make("span", {}, "other nodes")));
  const corner = make("th", {scope: "col", role: "columnheader"}, make("span", {}, "block"));
  const made = rows.map(row => makeRow(row, columns));
  mapRows = made.map(row => row.cells).filter(cells => cells.length);
  byId("map").replaceChildren(
    make("thead", {}, make("tr", {role: "row"}, corner, ...heads)),
    make("tbody", {}, ...made.map(row => row.element)));
  colourMap();
  markChosen();
}

function colourMap() {
  for (const cell of mapRows.flat()) cell.node ? colourCell(cell) : colourOthers(cell);
}

function markChosen() {
  const node = shownNode(), cells = mapRows.flat();
  const isChosen = cell => cell.node ? cell.node === node
    : cell.row.key === state.group || (node !== null && cell.row.others.includes(node));
  for (const cell of cells) cell.holder.setAttribute("aria-selected", String(isChosen(cell)));
  const chosen = cells.find(isChosen) ?? cells[0];
  if (chosen) focusable(chosen.button);
}

/** Makes a button the map's only tab stop. */
function focusable(button) {
  for (const cell of mapRows.flat()) cell.button.tabIndex = cell.button === button ? 0 : -1;
}

const nearest = (cells, column) => cells.reduce(
  (best, cell) => Math.abs(cell.column - column) < Math.abs(best.column - column) ? cell : best);

/** The cell that a key leads to; undefined at a border and for other keys. */
function cellTowards(event, row, at) {
  const cells = mapRows[row], above = mapRows[row - 1], below = mapRows[row + 1];
  switch (event.key) {
    case "ArrowLeft": return cells[at - 1];
    case "ArrowRight": return cells[at + 1];
    case "ArrowUp": return above && nearest(above, cells[at].column);
    case "ArrowDown": return below && nearest(below, cells[at].column);
    case "Home": return event.ctrlKey ? mapRows[0][0] : cells[0];
    case "End": return event.ctrlKey ? mapRows.at(-1).at(-1) : cells.at(-1);
    default: return undefined;
  }
}

function moveFocus(event) {
  if (event.altKey || event.metaKey || event.shiftKey) return;
  const row = mapRows.findIndex(cells => cells.some(cell => cell.button === event.target));
  if (row < 0) return;
  const target = cellTowards(event, row, mapRows[row].findIndex(cell => cell.button === event.target));
  if (!target) return;
  event.preventDefault();
  focusable(target.button);
  target.button.focus();
}

function startMap() {
  byId("map").addEventListener("keydown", moveFocus);
  drawMap();
  onChange(["variant"], drawMap);
  onChange(["mode"], colourMap);
  onChange(["node", "group"], markChosen);
}
