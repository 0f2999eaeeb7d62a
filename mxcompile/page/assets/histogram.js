// Values of an operand before quantization, over the values that its format can express.

// Lines through the upper picture, one for each level, unless they would cover it.
const MOST_LINES = 64;
const BEFORE = "#0072B2", BEFORE_DARK = "#56B4E9", AFTER = "#D55E00";
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

let shownHistograms = [], shownOperand = null;

const histogramNow = () => shownHistograms.find(each => each.operand === shownOperand) ?? shownHistograms[0] ?? null;

function drawHistograms(node) {
  shownHistograms = histogramsOf(shownVariant(), node);
  const now = histogramNow();
  shownOperand = now?.operand ?? shownOperand;
  byId("histograms").hidden = !now;
  byId("values-head").hidden = !node;
  byId("no-histograms").hidden = Boolean(now);
  byId("no-histograms").textContent = whyNone(node);
  if (!now) return;
  const tabs = shownHistograms.map(each => make("button", {type: "button", role: "tab", id: `tab-${each.operand}`,
    tabIndex: each === now ? 0 : -1, "aria-selected": String(each === now), "aria-controls": "operand",
    onclick: () => showOperand(each.operand)}, each.operand));
  byId("operands").replaceChildren(...tabs);
  byId("operand").setAttribute("aria-labelledby", `tab-${now.operand}`);
  describeHistogram(now);
  draw("histogram");
}

function whyNone(node) {
  if (!node) return "";
  if (!node.product) return "Only operands of matrix products have histograms.";
  if (!quantized(node)) return "This product is left in float.";
  return "No values of this product were looked at.";
}

function showOperand(operand) {
  shownOperand = operand;
  drawHistograms(shownNode());
}

/** Arrow keys move between tabs, and open them. */
function moveTab(event) {
  const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (!step) return;
  event.preventDefault();
  const at = shownHistograms.indexOf(histogramNow()), size = shownHistograms.length;
  showOperand(shownHistograms[(at + step + size) % size].operand);
  byId(`tab-${shownOperand}`).focus();
}

/** The picture in words, and in a table with the same numbers. */
function describeHistogram(each) {
  const {format, elements, sqnr_db: sqnr, edges, counts, levels, level_counts: found} = each;
  const quality = sqnr === null ? "" : `; rounding leaves ${WRITE.sqnr_db(sqnr)}`;
  byId("histogram-text").textContent = `${elements.toLocaleString("en")} ${each.operand} in ${format}, as multiples of their `
    + `scale${quality}. ${levels.length ? `${levels.length} values can be expressed.` : "Too many values to draw."}`;
  const bins = counts.map((count, index) => [`${edgeText(edges[index])} to ${edgeText(edges[index + 1])}`, String(count)]);
  const rounded = levels.map((level, index) => [edgeText(level), String(found[index])]);
  byId("histogram-numbers").replaceChildren(
    makeTable(["values before, from to", "elements"], bins),
    ...(levels.length ? [makeTable(["value that can be expressed", "elements after"], rounded)] : []));
}

const edgeText = value => String(Number(value.toPrecision(4)));

/** Half of the smallest distance of levels, but wide enough to be seen. */
function stemWidth({levels, edges}) {
  const gaps = levels.slice(1).map((level, index) => level - levels[index]).filter(gap => gap > 0);
  const span = edges.at(-1) - edges[0];
  return Math.max(span / 250, Math.min(span / 60, ...gaps.map(gap => gap / 2)));
}

/** Range of a count; on a logarithmic axis a single element must stand above the ground. */
const countRange = (values, type) => {
  const most = values.reduce((a, b) => Math.max(a, b), 1);
  return type === "log" ? [Math.log10(0.5), Math.log10(most * 1.5)] : [0, most * 1.05];
};

function histogramContent() {
  const each = histogramNow();
  if (!each) return null;
  const {edges, counts, levels, level_counts: found} = each;
  const type = byId("histogram-log").checked ? "log" : "linear", both = levels.length > 0;
  // Half a bar of the outermost levels lies beyond the bins.
  const margin = (edges.at(-1) - edges[0]) / 60, ink = isDark() ? BEFORE_DARK : BEFORE;
  const traces = [{
    type: "bar", name: "before", x: counts.map((_, index) => (edges[index] + edges[index + 1]) / 2), y: counts,
    width: counts.map((_, index) => edges[index + 1] - edges[index]), marker: {color: ink, line: {width: 0}},
    customdata: counts.map((_, index) => `${edgeText(edges[index])} to ${edgeText(edges[index + 1])}`),
    hovertemplate: "%{customdata}: %{y}<extra>before</extra>",
  }];
  if (both) traces.push({
    type: "bar", name: "after", x: levels, y: found, yaxis: "y2", width: stemWidth(each), marker: {color: AFTER},
    hovertemplate: "%{x}: %{y}<extra>after</extra>",
  });
  const shapes = levels.length > MOST_LINES ? [] : levels.map(level => ({type: "line", xref: "x", yref: "y domain",
    x0: level, x1: level, y0: 0, y1: 1, line: {color: css("--soft"), width: 1, dash: "dot"}, layer: "below"}));
  const count = {type, exponentformat: "SI", nticks: 5, dtick: type === "log" ? 2 : undefined};
  return {traces, look: {
    bargap: 0, shapes,
    xaxis: axis("value in units of its scale", {range: [edges[0] - margin, edges.at(-1) + margin], anchor: both ? "y2" : "y",
      zeroline: false, showgrid: !shapes.length}),
    yaxis: axis("before", {...count, range: countRange(counts, type), domain: both ? [0.45, 1] : [0, 1]}),
    yaxis2: axis("after", {...count, range: countRange(found, type), domain: [0, 0.36]}),
  }};
}

function startHistograms() {
  chart("histogram", histogramContent);
  byId("operands").addEventListener("keydown", moveTab);
  byId("histogram-log").addEventListener("change", () => draw("histogram"));
}
