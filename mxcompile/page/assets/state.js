// What the reader has chosen, and who is told of it.

const state = {variant: 0, mode: "format", node: null, group: null};
const listeners = [];

/** Calls `listener` after one of `keys` has changed. */
function onChange(keys, listener) {
  listeners.push({keys, listener});
}

function choose(changes) {
  const changed = Object.keys(changes).filter(key => state[key] !== changes[key]);
  Object.assign(state, changes);
  for (const {keys, listener} of listeners) if (keys.some(key => changed.includes(key))) listener();
}

const shownVariant = () => variants[state.variant];
const nodesByName = variants.map(variant => new Map(variant.nodes.map(node => [node.name, node])));
const shownNode = () => nodesByName[state.variant].get(state.node) ?? null;

/** Says a sentence to those who hear the page instead of seeing it. */
function announce(sentence) {
  byId("said").textContent = sentence;
}
