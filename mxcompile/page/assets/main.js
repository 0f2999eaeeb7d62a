// Starts what the page has.

function startVariants() {
  const choice = byId("variant");
  choice.append(...variants.map((variant, index) => make("option", {value: String(index)}, variant.name)));
  choice.closest("label").hidden = variants.length < 2;
  choice.addEventListener("change", () => choose({variant: Number(choice.value)}));
}

document.documentElement.classList.add("script");
startCharts();
if (byId("pareto")) startPareto();
if (byId("graph")) {
  const first = variants[0].nodes.find(node => node.product && quantized(node)) ?? variants[0].nodes[0];
  state.node = first?.name ?? null;
  startVariants();
  startLegend();
  startMap();
  startHistograms();
  startDetails();
  startTable();
}
