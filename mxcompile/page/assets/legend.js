// The legend of the map, and the choice of what its colours mean.

const MODE_NAMES = {format: "format", sqnr_db: "error (SQNR)", kl: "error (KL)", energy_pj: "energy"};

function drawModes() {
  const radios = modes.map(mode => make("label", {className: "choice"},
    make("input", {type: "radio", name: "mode", value: mode, checked: mode === state.mode,
      onchange: () => choose({mode})}),
    MODE_NAMES[mode]));
  byId("modes").append(...radios);
}

function legendItem(colour, letter, text, hatched = false) {
  const chip = make("span", {className: `chip${hatched ? " hatched" : ""}`, "aria-hidden": "true"}, make("span", {}, letter));
  if (colour) Object.assign(chip.style, {backgroundColor: colour, color: inkOn(colour)});
  return make("li", {}, chip, text);
}

/** The colours of a scale as a strip, with figures at its ends and in its middle. */
function scaleStrip(mode) {
  const {title, low, high, falling} = SCALES[mode], {least, most, log} = ranges[mode];
  const middle = log ? Math.sqrt(least * most) : (least + most) / 2;
  const values = falling ? [most, middle, least] : [least, middle, most];
  const stops = Array.from({length: 17}, (_, index) => blend(index / 16));
  const strip = make("div", {className: "strip", "aria-hidden": "true"});
  strip.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
  const ticks = values.map((value, index) => make("span", {}, [`${low}: `, "", `${high}: `][index] + WRITE[mode](value)));
  return make("li", {className: "scale"},
    make("span", {}, `${title}${log ? ", logarithmic" : ""}; cells in ${unitOf(mode)}`), strip,
    make("div", {className: "ticks"}, ...ticks));
}

function drawLegend() {
  const items = [];
  if (state.mode === "format") {
    formatMarks.forEach((mark, key) => items.push(legendItem(mark.colour, mark.letter, key)));
  } else {
    items.push(scaleStrip(state.mode));
  }
  if (allProducts.some(node => !quantized(node))) items.push(legendItem(null, "fl", "left in float", true));
  if (state.mode !== "format") items.push(legendItem(null, NOTHING, "no figure"));
  byId("legend").replaceChildren(...items);
}

function startLegend() {
  drawModes();
  drawLegend();
  onChange(["mode"], drawLegend);
}
