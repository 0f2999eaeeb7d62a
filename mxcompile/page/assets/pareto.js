// Quality against cost: which forms of the model are worth their bits, or their energy.

const AXES = {
  bits: "stored bits of a weight, mean", energy_pj: "energy for a token, nJ",
  perplexity_increase: "growth of perplexity, %", kl: "KL divergence of the next token, nat",
};
const FACTORS = {bits: 1, energy_pj: 1e-3, perplexity_increase: 100, kl: 1};
const KINDS = {
  float: {name: "original", symbol: "diamond", colour: "#999999", size: 13},
  format: {name: "one format", symbol: "circle", colour: "#0072B2", size: 12},
  mixture: {name: "mixture, predicted", symbol: "triangle-up", colour: "#E69F00", size: 10},
  chosen: {name: "mixture, written", symbol: "star", colour: "#D55E00", size: 17},
};
// Points of a kind that all bear their names; more would hide each other.
const MOST_NAMES = 12;
// A logarithmic axis of cost, so that the original does not push all others into a corner.
const BITS = [2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32];

const paretoAxes = () => ({x: byId("pareto-x").value, y: byId("pareto-y").value});

function drawnPoints() {
  const {x, y} = paretoAxes(), isLog = byId("pareto-log").checked;
  return points.filter(point => point[x] > 0 && Number.isFinite(point[y]) && !(isLog && point[y] <= 0))
    .sort((a, b) => a[x] - b[x] || a[y] - b[y]);
}

/** Points that no other beats in both figures, by growing cost. */
function frontier(drawn, y) {
  let best = Infinity;
  return drawn.filter(point => {
    if (point[y] >= best) return false;
    best = point[y];
    return true;
  });
}

// Boxes of names in pixels, roughly: a letter's width, a line's height, and the distance from the middle of a mark.
const LETTER = 7.5, LINE = 16, AWAY = 10;

const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

/** Where a name would stand on each side of its mark; below it first, as the line of the best comes from above. */
function boxes(name, [across, down]) {
  const width = LETTER * name.length;
  const box = (left, top) => ({left, top, right: left + width, bottom: top + LINE});
  return {
    "bottom center": box(across - width / 2, down + AWAY), "top center": box(across - width / 2, down - AWAY - LINE),
    "middle right": box(across + AWAY, down - LINE / 2), "middle left": box(across - AWAY - width, down - LINE / 2),
  };
}

/** Places in pixels, roughly: margins and the legend are left out of account. */
function places(drawn, {x, y}) {
  const isLog = byId("pareto-log").checked, across = point => Math.log(point[x]);
  const up = point => isLog ? Math.log(point[y]) : point[y];
  const share = (read, list = drawn.map(read), least = Math.min(...list), span = Math.max(...list) - least || 1) =>
    list.map(value => (value - least) / span);
  const right = share(across), height = share(up), room = byId("pareto-chart").clientWidth - 90;
  return drawn.map((_, index) => [45 + right[index] * room, 250 * (1 - height[index])]);
}

/** Sides for names, so that they write neither over each other nor over marks, nor leave the picture. */
function sides(drawn, axes) {
  const spots = places(drawn, axes), width = byId("pareto-chart").clientWidth;
  const taken = spots.map(([across, down]) => ({left: across - 6, right: across + 6, top: down - 6, bottom: down + 6}));
  return drawn.map((point, index) => {
    const choices = Object.entries(boxes(point.name, spots[index])).map(([side, box]) => ({side, box,
      faults: taken.filter(other => overlap(box, other)).length + (box.left < 0 || box.right > width ? 1 : 0)}));
    const best = choices.reduce((a, b) => b.faults < a.faults ? b : a);
    taken.push(best.box);
    return best.side;
  });
}

function paretoContent() {
  const {x, y} = paretoAxes(), drawn = drawnPoints(), best = frontier(drawn, y);
  const scaled = (list, key) => list.map(point => point[key] * FACTORS[key]);
  const side = sides(drawn, {x, y}), placed = new Map(drawn.map((point, index) => [point, side[index]]));
  const traces = [{type: "scatter", mode: "lines", name: "not beaten", x: scaled(best, x), y: scaled(best, y),
    line: {color: css("--soft"), width: 2, dash: "dash", shape: "hv"}, hoverinfo: "skip"}];
  for (const [kind, {name, symbol, colour, size}] of Object.entries(KINDS)) {
    const own = drawn.filter(point => point.kind === kind), named = own.length <= MOST_NAMES;
    if (own.length) traces.push({type: "scatter", mode: named ? "markers+text" : "markers", name, x: scaled(own, x),
      y: scaled(own, y), text: own.map(plain), textposition: own.map(point => placed.get(point)), cliponaxis: false,
      marker: {symbol, size, color: colour, line: {color: css("--ink"), width: 1}},
      hovertemplate: "%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>"});
  }
  const type = byId("pareto-log").checked ? "log" : "linear";
  return {traces, look: {showlegend: true, legend: {orientation: "h", y: 1.02, yanchor: "bottom"},
    xaxis: axis(AXES[x], {type: "log", ...(x === "bits" ? {tickvals: BITS} : {exponentformat: "power"})}), yaxis: axis(AXES[y], {type, exponentformat: "power", ...(type === "log" ? {dtick: "D2"} : {})})}};
}

/** A name without what the library would read as markup. */
const plain = point => point.name.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

function describePareto() {
  const {x, y} = paretoAxes(), drawn = drawnPoints(), best = frontier(drawn, y), missing = points.length - drawn.length;
  byId("pareto-text").textContent = (best.length ? `Not beaten: ${best.map(point => point.name).join(", ")}.`
    : "No form of the model has both figures.") + (missing ? ` ${missing} of ${points.length} cannot be drawn.` : "");
}

function fillAxis(id, keys) {
  const measured = keys.filter(key => points.some(point => point[key] !== null));
  byId(id).append(...measured.map(key => make("option", {value: key}, AXES[key].replace(/, (nJ|%|nat)$/, ""))));
}

function startPareto() {
  fillAxis("pareto-x", ["bits", "energy_pj"]);
  fillAxis("pareto-y", ["perplexity_increase", "kl"]);
  const redraw = () => {
    describePareto();
    draw("pareto-chart");
  };
  for (const id of ["pareto-x", "pareto-y", "pareto-log"]) byId(id).addEventListener("change", redraw);
  chart("pareto-chart", paretoContent);
  describePareto();
}
