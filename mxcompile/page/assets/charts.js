// The plotting library, unpacked when the first chart comes near the screen, and what all charts share.

const MISSING = "This browser cannot unpack the charts; their numbers are in the tables.";
const SETTINGS = {displayModeBar: false, responsive: true, doubleClick: false, showTips: false};

let plotting = null;

async function unpackPlotly() {
  const bytes = Uint8Array.from(atob(byId("plotly").textContent), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const source = await new Response(stream).text();
  document.head.append(make("script", {text: source}));
  return window.Plotly;
}

/** The library; unpacked once. */
function plotly() {
  plotting ??= unpackPlotly();
  return plotting;
}

const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function axis(title, more = {}) {
  return {title: {text: title}, fixedrange: true, gridcolor: css("--line"), zerolinecolor: css("--line"),
    linecolor: css("--soft"), automargin: true, ...more};
}

function layout(more) {
  return {
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", dragmode: false, showlegend: false, autosize: true,
    margin: {l: 8, r: 8, t: 8, b: 8}, font: {family: "system-ui, sans-serif", size: 13, color: css("--ink")},
    hoverlabel: {bgcolor: css("--panel"), bordercolor: css("--line"), font: {color: css("--ink")}}, ...more,
  };
}

const charts = new Map();

/** Draws a chart into `#id` as soon as it is near the screen, and again on every call. */
async function draw(id) {
  const {place, content, near} = charts.get(id);
  if (!near) return;
  if (!window.DecompressionStream) {
    place.replaceChildren(make("p", {className: "soft"}, MISSING));
    return;
  }
  const library = await plotly(), now = content();
  if (!now) return;
  await library.react(place, now.traces, layout(now.look), SETTINGS);
  place.dataset.drawn = Number(place.dataset.drawn ?? 0) + 1;
}

/** Registers a chart: `content` gives traces and layout for what is chosen now, or null. */
function chart(id, content) {
  const place = byId(id), entry = {place, content, near: false};
  charts.set(id, entry);
  const watcher = new IntersectionObserver(seen => {
    if (!seen.some(each => each.isIntersecting)) return;
    watcher.disconnect();
    entry.near = true;
    draw(id);
  }, {rootMargin: "300px"});
  watcher.observe(place);
}

function startCharts() {
  const redraw = () => charts.forEach((_, id) => draw(id));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}
