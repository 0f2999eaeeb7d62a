// How figures are written for people, and elements made. Data enters the page as text only, never as markup.

const NOTHING = "–";
const PREFIXES = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"], [1e-12, "p"]];

/** Three digits without an exponent where that is short. */
function short(value) {
  return String(Number(value.toPrecision(3)));
}

/** A figure with a prefix and its unit: 1.23 µJ. */
function withUnit(value, unit) {
  if (value === null) return NOTHING;
  if (value === 0) return `0 ${unit}`.trim();
  const [scale, prefix] = PREFIXES.find(([size]) => Math.abs(value) >= size) ?? PREFIXES.at(-1);
  return `${short(value / scale)} ${prefix}${unit}`.trim();
}

const WRITE = {
  bits: value => value === null ? NOTHING : short(value),
  k: value => value === null ? NOTHING : String(value),
  n: value => value === null ? NOTHING : String(value),
  sqnr_db: value => value === null ? NOTHING : `${value.toFixed(1)} dB`,
  kl: value => value === null ? NOTHING : `${short(value)} nat`,
  macs: value => withUnit(value, ""),
  energy_pj: value => withUnit(value === null ? null : value * 1e-12, "J"),
  perplexity_increase: value => value === null ? NOTHING : `${short(100 * value)} %`,
};

const PRODUCTS = {linear: "linear layer", qk: "queries × keys", pv: "probabilities × values"};

/** Formats of a product in a line: once if both are the same. */
function formatsOf(node) {
  if (node.weights === null && node.activations === null) return node.product ? "float" : "";
  const weights = node.weights ?? "float", activations = node.activations ?? "float";
  return weights === activations ? weights : `${weights} × ${activations}`;
}

/** An element; `on...` are listeners, names with a dash are attributes, others are properties. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "scope") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter(child => child !== null));
  return element;
}

const byId = id => document.getElementById(id);

/** A table for reading; cells of the first column are row heads. */
function makeTable(heads, rows) {
  const head = make("tr", {}, ...heads.map(text => make("th", {scope: "col"}, text)));
  const body = rows.map(cells => make("tr", {}, ...cells.map(
    (text, index) => index ? make("td", {}, text) : make("th", {scope: "row"}, text))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}
