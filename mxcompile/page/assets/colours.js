// Colours of nodes by format, error or energy: the same for all variants, so that they can be compared.

// Okabe and Ito's colours, in an order in which neighbours differ in lightness too.
const CATEGORIES = ["#0072B2", "#F0E442", "#CC79A7", "#009E73", "#56B4E9", "#D55E00", "#999999"];
// Cividis (Nunez, Anderton and Renslow 2018) in nine steps: lightness grows evenly, also for the colour-blind.
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55",
  "#fee838"];
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
// From this ratio of the largest to the smallest figure on, a logarithmic scale tells them apart better.
const LOGARITHMIC_FROM = 30;

const SCALES = {
  sqnr_db: {title: "SQNR of the result", low: "small error", high: "large error", falling: true},
  kl: {title: "KL divergence, this product alone", low: "small error", high: "large error"},
  energy_pj: {title: "energy for a token", low: "little", high: "much"},
};

const allNodes = variants.flatMap(variant => variant.nodes);
const allProducts = allNodes.filter(node => node.product);
const quantized = node => node.weights !== null || node.activations !== null;

/** Pairs of formats in order of appearance, with a letter and a colour each. */
const formatKeys = [...new Set(allProducts.filter(quantized).map(formatsOf))];
const formatMarks = new Map(formatKeys.map((key, index) => [key, {
  letter: LETTERS[index % LETTERS.length] + "′".repeat(Math.floor(index / LETTERS.length)),
  colour: CATEGORIES[index % CATEGORIES.length],
}]));

/** Ends of a scale over the products of all variants; null where nobody has that figure. */
function rangeOf(key) {
  const values = allProducts.map(node => node[key]).filter(value => value !== null);
  if (!values.length) return null;
  // Not Math.min(...values): a large page has more values than a call may have arguments.
  const least = values.reduce((a, b) => Math.min(a, b)), most = values.reduce((a, b) => Math.max(a, b));
  return {least, most, log: least > 0 && most / least > LOGARITHMIC_FROM && key !== "sqnr_db"};
}

const ranges = Object.fromEntries(Object.keys(SCALES).map(key => [key, rangeOf(key)]));
const modes = ["format", ...Object.keys(SCALES).filter(key => ranges[key])];

/** Place of a value on its scale, 0 to 1, where 1 is the worst; what lies outside is put at the end. */
function place(key, value) {
  const {least, most, log} = ranges[key];
  if (most === least) return 0.5;
  const from = log ? Math.log(value / least) / Math.log(most / least) : (value - least) / (most - least);
  const inside = Math.min(1, Math.max(0, from));
  return SCALES[key].falling ? 1 - inside : inside;
}

const channels = colour => [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));

function blend(position) {
  const at = position * (CIVIDIS.length - 1), lower = Math.min(Math.floor(at), CIVIDIS.length - 2);
  const from = channels(CIVIDIS[lower]), to = channels(CIVIDIS[lower + 1]);
  const mixed = from.map((value, index) => Math.round(value + (to[index] - value) * (at - lower)));
  return `#${mixed.map(value => value.toString(16).padStart(2, "0")).join("")}`;
}

/** Black or white, whichever is read better; one of them always has a contrast above 4.5 (WCAG 2, relative luminance). */
function inkOn(colour) {
  const linear = channels(colour).map(value => value / 255).map(
    value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) ? "#000000" : "#ffffff";
}

const UNITS = {energy_pj: 1e-12, kl: 1};
const prefixOf = value => PREFIXES.find(([size]) => value >= size) ?? PREFIXES.at(-1);
const twoDigits = value => Number(value.toPrecision(2));

/** A figure so short that it fits into a cell of the map; the legend states the unit. */
function brief(key, value) {
  if (key === "sqnr_db") return value.toFixed(1);
  if (key === "energy_pj") return String(twoDigits(value * UNITS[key] / prefixOf(ranges[key].most * UNITS[key])[0]));
  // Rounded first: 0.9996 m is 1 m, not 1000 µ.
  const rounded = twoDigits(value), [scale, prefix] = prefixOf(rounded);
  return `${twoDigits(rounded / scale)}${rounded ? prefix : ""}`;
}

/** Unit of the figures in the cells. */
function unitOf(key) {
  if (key === "sqnr_db") return "dB";
  if (key === "kl") return "nat; m is 1/1000, µ a millionth";
  return `${prefixOf(ranges[key].most * UNITS[key])[1]}J`;
}

/** How a node is drawn in a mode: `colour` (null: no figure), `label`, and `hatched` for a product left in float. */
function paint(node, mode) {
  const hatched = Boolean(node.product) && !quantized(node);
  if (mode === "format") {
    const mark = node.product && !hatched ? formatMarks.get(formatsOf(node)) : null;
    return {colour: mark?.colour ?? null, label: mark?.letter ?? (hatched ? "fl" : ""), hatched};
  }
  const value = node[mode];
  if (value === null) return {colour: null, label: hatched ? "fl" : NOTHING, hatched};
  return {colour: blend(place(mode, value)), label: brief(mode, value), hatched};
}
