// The table of nodes: sorted by any column, filtered, some hundred rows at a time.

const ROWS_AT_ONCE = 500;

const COLUMNS = [
  {head: "node", read: node => node.name, words: true},
  {head: "op", read: node => node.op, words: true},
  {head: "layer", read: node => node.layer, words: true},
  {head: "formats", read: formatsOf, words: true},
  {head: "bits", key: "bits"},
  {head: "k", key: "k"},
  {head: "n", key: "n"},
  {head: "SQNR", key: "sqnr_db"},
  {head: "KL", key: "kl"},
  {head: "MACs", key: "macs"},
  {head: "energy", key: "energy_pj"},
  {head: "left in float, for", read: node => node.skipped ?? "", words: true},
].filter(column => column.words || allNodes.some(node => node[column.key] !== null));

const KEEP = {products: node => node.product !== null, skipped: node => node.skipped !== null, all: () => true};
const sorted = {column: null, descending: false};
let rowLimit = ROWS_AT_ONCE;

const valueOf = (column, node) => column.words ? column.read(node) : node[column.key];

/** Order of two nodes; those without a figure come last either way. */
function compare(column, descending) {
  const sign = descending ? -1 : 1;
  const collator = new Intl.Collator("en", {numeric: true});
  return (a, b) => {
    const x = valueOf(column, a), y = valueOf(column, b);
    if (column.words) return (!x || !y) ? Number(!x) - Number(!y) : sign * collator.compare(x, y);
    if (x === null || y === null) return Number(x === null) - Number(y === null);
    return sign * (x - y);
  };
}

function nodesWanted() {
  const text = byId("find").value.trim().toLowerCase(), keep = KEEP[byId("keep").value];
  const searched = node => [node.name, node.op, node.layer, node.role, formatsOf(node), node.skipped ?? ""];
  const found = shownVariant().nodes.filter(
    node => keep(node) && (!text || searched(node).some(part => part.toLowerCase().includes(text))));
  return sorted.column ? found.sort(compare(sorted.column, sorted.descending)) : found;
}

function makeNodeRow(node) {
  const cells = COLUMNS.map((column, index) => {
    const value = valueOf(column, node), text = column.words ? value : WRITE[column.key](value);
    if (index) return make("td", {className: column.words ? "left" : ""}, text);
    return make("th", {scope: "row", className: "left"}, make("button", {type: "button", className: "plain"}, text));
  });
  const row = make("tr", {}, ...cells);
  row.dataset.name = node.name;
  return row;
}

function drawRows() {
  const wanted = nodesWanted(), shown = wanted.slice(0, rowLimit);
  byId("node-rows").replaceChildren(...shown.map(makeNodeRow));
  byId("found").textContent = `${wanted.length} of ${shownVariant().nodes.length} nodes of ${shownVariant().name}`
    + (shown.length < wanted.length ? `, the first ${shown.length} shown` : "");
  byId("more").hidden = shown.length === wanted.length;
  markRow();
}

function markRow() {
  for (const row of byId("node-rows").rows) {
    if (row.dataset.name === state.node) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}

/** The first click sorts, the second turns the order round, the third brings back that of the graph. */
function sortBy(column, head) {
  const first = !column.words, again = sorted.column === column;
  sorted.column = again && sorted.descending !== first ? null : column;
  sorted.descending = again ? !first : first;
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  if (sorted.column) head.setAttribute("aria-sort", sorted.descending ? "descending" : "ascending");
  drawRows();
}

/** Opens a row's node; the map and the values are elsewhere on the page, so it goes there. */
function openRow(event) {
  const row = event.target.closest("tr");
  if (!row || getSelection().toString()) return;
  choose({node: row.dataset.name, group: null});
  byId("details").scrollIntoView({block: "nearest"});
  if (event.detail === 0) byId("details").focus();
}

function drawHeads() {
  const heads = COLUMNS.map(column => {
    const head = make("th", {scope: "col", className: column.words ? "left" : ""});
    head.append(make("button", {type: "button", onclick: () => sortBy(column, head)}, column.head));
    return head;
  });
  byId("node-heads").replaceChildren(...heads);
}

function startTable() {
  drawHeads();
  drawRows();
  const again = () => {
    rowLimit = ROWS_AT_ONCE;
    drawRows();
  };
  byId("find").addEventListener("input", again);
  byId("keep").addEventListener("change", again);
  byId("more").addEventListener("click", () => {
    rowLimit += ROWS_AT_ONCE;
    drawRows();
  });
  byId("node-rows").addEventListener("click", openRow);
  onChange(["variant"], again);
  onChange(["node"], markRow);
}
