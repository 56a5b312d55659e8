// The page of `innerloop explore`. The server computes; the page asks for the latest state only, never for a queue of them.

import { axes, legend, line, logLimits, LOOKS, short, svg } from "./plots.js";

const REFERENCES = { ols: "least squares", ridge: "ridge with the true sigma", bayes: "Bayes" };
const LETTERS = ["one", "two"];
const FLOWS = [
  ["w_xx", 0, 0],
  ["w_xy", 0, 1],
  ["w_yx", 1, 0],
  ["w_yy", 1, 1],
];
const STOPS = 200; // of a slider, on either side of zero
const at = (id) => document.getElementById(id);

const state = {
  about: null,
  flows: [], // of each run as the sliders have it, null for a FULL
  drawn: null, // x, y, weights
  first: null, // x, y as drawn
  redraw: false, // whether a fresh context was asked for
  outlier: null, // which example was made one, and its label before
  answer: null, // of /api/context
  sample: null,
  trained: [], // losses with the trained numbers
  losses: [], // and as the sliders have it
  moved: new Set(), // runs whose sliders were moved since
  feature: null, // that the user chose
  chosen: 0, // the example that the keyboard moves
  slice: null,
};

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer: was innerloop explore ended?");
  }
  const answer = await response.json().catch(() => ({ error: `The server answers with status ${response.status}.` }));
  if (answer.error) throw new Error(answer.error);
  at("error").textContent = "";
  return answer;
}

// `send` of the latest state: one request at a time, and one more if something changed meanwhile.
function latest(send) {
  let busy = false;
  let again = false;
  return async () => {
    again = true;
    if (busy) return;
    busy = true;
    while (again) {
      again = false;
      await send().catch(complain);
    }
    busy = false;
  };
}

function complain(error) {
  at("error").textContent = error.message;
}

const label = (run) => (state.about.runs.length > 1 ? `Run ${run + 1}` : "The model");
const depth = () => Math.max(...state.about.runs.map((run) => run.layers));
const layerOf = (run) => Math.min(Number(at("layer").value), state.about.runs[run].layers);
const feature = () => Number(at("feature").value || 0);

// --- The context

// One loop for both, so that an answer always belongs to the context that is shown.
const follow = latest(async () => {
  if (state.redraw) {
    state.redraw = false;
    const [n, dim, sigma, seed] = ["n", "dim", "sigma", "seed"].map((id) => Number(at(id).value));
    state.drawn = await ask("/api/draw", { n, dim, sigma, seed });
    state.first = structuredClone({ x: state.drawn.x, y: state.drawn.y });
    Object.assign(state, { outlier: null, chosen: Math.min(state.chosen, n - 1) });
    await context();
    offerFeatures(dim);
    buildSlice();
  } else await context();
  showContext();
});

function draw() {
  state.redraw = true;
  return follow();
}

async function context() {
  const { x, y } = state.drawn;
  state.answer = await ask("/api/context", { x, y, sigma: Number(at("sigma").value), flows: state.flows });
}

// The features to show; the one that matters most, unless another was chosen.
function offerFeatures(dim) {
  const sizes = state.drawn.weights.map(Math.abs);
  const kept = state.feature !== null && state.feature < dim ? state.feature : sizes.indexOf(Math.max(...sizes));
  at("feature").replaceChildren(...Array.from({ length: dim }, (_, index) => new Option(`feature ${index + 1} of ${dim}`, index)));
  at("feature").value = kept;
}

function showContext() {
  updateSlice();
  showDistances();
}

function showChoices() {
  for (const id of ["n", "dim"]) at(`${id}-said`).textContent = at(id).value;
  at("sigma-said").textContent = Number(at("sigma").value).toFixed(1);
  const { dim, context } = state.about.problem;
  const [low, high] = state.about.limits.dim;
  const notes = [];
  if (low === high) notes.push(`d stays ${dim}: the run's matrices, or the covariances of its problem, have that size.`);
  if (Number(at("dim").value) !== dim || Number(at("n").value) !== context) {
    notes.push(`The run was trained at d = ${dim}, n = ${context}; here the same numbers are at work elsewhere.`);
  }
  at("dim-note").textContent = notes.join(" ");
}

// --- The slice

// The label of an example less what the true weights say of the features that are not shown.
function shown(index) {
  const { x, y, weights } = state.drawn;
  const others = x[index].reduce((sum, value, other) => (other === feature() ? sum : sum + value * weights[other]), 0);
  return [x[index][feature()], y[index] - others, others];
}

function buildSlice() {
  const points = state.drawn.y.map((_, index) => shown(index));
  const reach = (column, least) => Math.max(least, ...points.map((point) => Math.abs(point[column])));
  const [right, top] = [reach(0, 2) * 1.15, reach(1, 1) * 1.7];
  const box = at("slice");
  const width = Math.max(260, box.clientWidth);
  const plot = axes({
    width, height: Math.min(420, Math.max(280, width * 0.6)), x: [-right, right], y: [-top, top],
    xlabel: `feature ${feature() + 1}`, ylabel: "label", label: "Examples and lines", role: "group",
  });
  state.slice = { plot, right, top, lines: svg("g"), circles: [] };
  plot.inside.append(state.slice.lines);
  points.forEach((_, index) => plot.inside.append(...circle(index)));
  plot.root.addEventListener("pointermove", drag);
  for (const end of ["pointerup", "pointercancel"]) plot.root.addEventListener(end, () => (state.slice.dragged = null));
  const names = state.about.runs.map((_, run) => ({ name: label(run), look: LOOKS[LETTERS[run]] }));
  for (const [key, name] of Object.entries(REFERENCES)) names.push({ name, look: LOOKS[key] });
  box.replaceChildren(plot.root, legend(names));
  at("slice-note").textContent = state.drawn.weights.length === 1 ? "" :
    "A slice: a point is a label less what the true weights say of the other features, a line the prediction where those are zero.";
}

function circle(index) {
  const element = svg("circle", { class: "point", r: 5, role: "slider", "aria-label": `Example ${index + 1}`, "data-index": index });
  const around = svg("circle", { class: "reach", r: 14, "aria-hidden": "true" });
  for (const each of [element, around]) {
    each.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      choose(index);
      state.slice.dragged = index;
      state.slice.plot.root.setPointerCapture(event.pointerId);
    });
  }
  element.addEventListener("focus", () => {
    state.chosen = index;
    sayPoint();
  });
  element.addEventListener("keydown", press);
  state.slice.circles[index] = [element, around];
  return [around, element];
}

function choose(index) {
  state.chosen = index;
  updatePoints();
  state.slice.circles[index][0].focus();
}

function drag(event) {
  const { dragged, plot } = state.slice;
  if (dragged === null || dragged === undefined) return;
  const frame = plot.root.getBoundingClientRect();
  const zoom = plot.root.viewBox.baseVal.width / frame.width;
  move(dragged, plot.scale.inverse((event.clientX - frame.left) * zoom, (event.clientY - frame.top) * zoom));
}

function press(event) {
  const { right, top } = state.slice;
  const step = event.shiftKey ? 10 : 1;
  const [x, y] = shown(state.chosen);
  const moves = {
    ArrowLeft: [x - (step * right) / 100, y],
    ArrowRight: [x + (step * right) / 100, y],
    ArrowDown: [x, y - (step * top) / 100],
    ArrowUp: [x, y + (step * top) / 100],
  };
  const count = state.drawn.y.length;
  const others = { PageDown: state.chosen + 1, PageUp: state.chosen - 1 + count, Home: 0, End: count - 1 };
  if (event.key in moves) move(state.chosen, moves[event.key]);
  else if (event.key in others) choose(others[event.key] % count);
  else return;
  event.preventDefault();
}

function move(index, [x, y]) {
  const { right, top } = state.slice;
  const inside = (value, most) => Math.max(-most, Math.min(most, value));
  const [, , others] = shown(index);
  state.drawn.x[index][feature()] = inside(x, right);
  state.drawn.y[index] = inside(y, top) + others;
  updatePoints();
  follow();
}

function updatePoints() {
  const { plot, circles } = state.slice;
  circles.forEach((both, index) => {
    const [x, y] = shown(index);
    const moved = state.first.y[index] !== state.drawn.y[index] || state.first.x[index].some((value, k) => value !== state.drawn.x[index][k]);
    for (const each of both) {
      each.setAttribute("cx", plot.scale.x(x).toFixed(2));
      each.setAttribute("cy", plot.scale.y(y).toFixed(2));
    }
    const [element] = both;
    element.classList.toggle("moved", moved);
    element.setAttribute("tabindex", index === state.chosen ? 0 : -1);
    element.setAttribute("aria-valuenow", y.toFixed(3));
    element.setAttribute("aria-valuetext", `feature ${short(x)}, label ${short(y)}`);
  });
  at("outlier").setAttribute("aria-pressed", state.outlier !== null);
  sayPoint();
}

function sayPoint() {
  const [x, y] = shown(state.chosen);
  at("point-said").textContent = `Example ${state.chosen + 1} of ${state.drawn.y.length}: feature ${short(x)}, label ${short(y)}.`;
}

function updateSlice() {
  const { plot, right, lines } = state.slice;
  const ends = (weights) => [-right, right].map((x) => [x, weights[feature()] === null ? null : x * weights[feature()]]);
  lines.replaceChildren();
  const target = { scale: plot.scale, inside: lines };
  for (const [key] of Object.entries(REFERENCES)) line(target, ends(state.answer.references[key]), LOOKS[key]);
  state.answer.runs.forEach((run, index) => {
    line(target, ends(run.path[layerOf(index)]), LOOKS[LETTERS[index]]);
    lines.lastChild.dataset.run = index + 1;
  });
  updatePoints();
}

function toggleOutlier() {
  const { x, y } = state.drawn;
  if (state.outlier) {
    y[state.outlier.index] = state.outlier.label;
    state.outlier = null;
  } else {
    const sizes = x.map((row) => Math.abs(row[feature()]));
    const index = sizes.indexOf(Math.max(...sizes));
    state.outlier = { index, label: y[index] };
    const [sx, sy, others] = shown(index);
    y[index] = others - Math.sign(sy || sx || 1) * state.slice.top * 0.92;
    state.chosen = index;
  }
  updatePoints();
  follow();
}

// --- Distances

function showDistances() {
  const { runs } = state.answer;
  const keys = Object.keys(REFERENCES);
  const all = runs.flatMap((run) => keys.flatMap((key) => run.distances[key]));
  const starts = runs.flatMap((run) => keys.map((key) => run.distances[key][0]));
  const box = at("distance");
  const plot = axes({
    width: Math.max(260, box.clientWidth), height: 280, x: [-0.15, depth() + 0.15], y: logLimits(all, starts), log: true,
    whole: true, xlabel: "after layer", ylabel: "distance of the weights (log scale)", label: "Distance from known answers after every layer",
  });
  const x = plot.scale.x(Number(at("layer").value));
  plot.inside.append(svg("line", { class: "now", x1: x, x2: x, y1: plot.size.top, y2: plot.size.bottom }));
  const entries = [];
  runs.forEach((run, index) => {
    for (const key of keys) {
      const marker = index === 0 ? "filled" : "hollow";
      const far = runs.length > 1 ? `${label(index)} to ${REFERENCES[key]}` : `to ${REFERENCES[key]}`;
      line(plot, run.distances[key].map((value, layer) => [layer, value]), LOOKS[key], marker);
      entries.push({ name: far, look: LOOKS[key], marker });
    }
  });
  box.replaceChildren(plot.root, legend(entries));
  at("distance-layer").textContent = `layer ${at("layer").value} of ${depth()}`;
  const ended = (run) => (layerOf(run) < Number(at("layer").value) ? ` (ended at ${layerOf(run)})` : "");
  const head = row("th", ["to", ...runs.map((_, run) => label(run) + ended(run))]);
  const body = keys.map((key) => row("td", [REFERENCES[key], ...runs.map((run, index) => short(run.distances[key][layerOf(index)]))]));
  at("distances").tHead.replaceChildren(head);
  at("distances").tBodies[0].replaceChildren(...body);
}

function row(kind, texts) {
  const found = document.createElement("tr");
  texts.forEach((text, index) => {
    const cell = document.createElement(index === 0 ? "th" : kind);
    if (cell.tagName === "TH") cell.scope = kind === "th" ? "col" : "row";
    cell.textContent = text;
    found.append(cell);
  });
  return found;
}

function showLayer() {
  const layer = Number(at("layer").value);
  at("layer-said").textContent = `${layer} of ${depth()}`;
  at("back").disabled = layer === 0;
  at("on").disabled = layer === depth();
  if (state.answer) showContext();
}

function step(by) {
  at("layer").value = Number(at("layer").value) + by;
  showLayer();
}

// --- Losses

const judge = latest(async () => {
  for (const run of [...state.moved]) {
    state.moved.delete(run);
    const asTrained = JSON.stringify(state.flows[run]) === JSON.stringify(state.about.runs[run].flows);
    state.losses[run] = asTrained ? state.trained[run] : await ask("/api/losses", { run, flows: state.flows[run] });
  }
  showLosses();
});

async function judgeAll() {
  state.sample = await ask("/api/sample");
  for (const run of state.about.runs.keys()) {
    state.trained[run] = await ask("/api/losses", { run });
    state.losses[run] ??= state.trained[run];
  }
  showLosses();
  showSliders();
}

function showLosses() {
  if (!state.sample || !state.about.runs.every((_, run) => state.losses[run] && state.trained[run])) return;
  at("loss").replaceChildren(...state.losses.map(lossText));
  const { sequences, floor, sigma, bayes } = state.sample;
  at("loss-note").textContent =
    `Adjusted loss: half the squared error at a fresh query, less that of ridge with the true sigma; on ${sequences} fresh sequences ` +
    `of ${state.about.problem.summary}, as trained, whatever is chosen above. The Bayes floor there is ${short(floor.value)} ± ${short(floor.se, 2)}. Shaded: the noise of that problem.`;
  const curves = [...state.losses, ...state.trained].flatMap((each) => each.by_sigma);
  const box = at("profile");
  const plot = axes({
    width: Math.max(260, box.clientWidth), height: 280, x: [0, sigma.at(-1)],
    y: logLimits([...curves, ...bayes], state.trained.flatMap((each) => each.by_sigma)), log: true,
    xlabel: "sigma", ylabel: "adjusted loss (log scale)", label: "Adjusted loss at each noise level",
  });
  const [low, high] = state.about.problem.sigma.map(plot.scale.x);
  plot.inside.append(svg("rect", { class: "seen", x: low, width: Math.max(2, high - low), y: plot.size.top, height: plot.size.bottom - plot.size.top }));
  const entries = [{ name: "Bayes", look: LOOKS.bayes }];
  line(plot, sigma.map((level, index) => [level, bayes[index]]), LOOKS.bayes);
  state.losses.forEach((loss, run) => {
    const look = LOOKS[LETTERS[run]];
    const faint = { ...look, dash: "1 4", width: 2 };
    if (loss !== state.trained[run]) {
      line(plot, sigma.map((level, index) => [level, state.trained[run].by_sigma[index]]), faint);
      entries.push({ name: `${label(run)} as trained`, look: faint });
    }
    line(plot, sigma.map((level, index) => [level, loss.by_sigma[index]]), look);
    entries.push({ name: label(run), look });
  });
  box.replaceChildren(plot.root, legend(entries));
}

function lossText(loss, run) {
  const text = document.createElement("p");
  const value = document.createElement("strong");
  value.textContent = short(loss.adjusted.value);
  value.dataset.loss = run + 1;
  const times = loss.adjusted.value === null ? "" : `, ${(loss.adjusted.value / state.sample.floor.value).toPrecision(3)} times the Bayes floor`;
  const trained = loss === state.trained[run] ? "" : `; as trained ${short(state.trained[run].adjusted.value)}`;
  const error = loss.adjusted.se === null ? "" : ` ± ${short(loss.adjusted.se, 2)}`;
  text.append(`${label(run)}: `, value, `${error}${times}${trained}`);
  return text;
}

// --- The numbers of each layer

function showSliders() {
  const movable = [...state.about.runs.keys()].filter((run) => state.flows[run]);
  const full = state.about.runs.length > movable.length
    ? "A FULL layer has two dense matrices instead of four numbers, so there is nothing to move; innerloop algorithm RUN shows its nearest DIAG. " : "";
  at("trained").hidden = !movable.length;
  if (!movable.length) {
    at("flows-note").textContent = full;
    return;
  }
  at("flows-note").textContent = `${full}Layer by layer what is carried where: w_xx preconditions the inputs, w_xy adapts the step size, ` +
    "w_yx is a gradient step, w_yy shrinks or stretches by the noise. Bars start at zero, on a square-root scale; the loss and the line follow.";
  const run = Number(at("edited").value);
  const trained = state.about.runs[run].flows;
  const kinds = FLOWS.filter(([, to, from]) => trained.some((layer) => layer[to][from] !== 0));
  at("flows").replaceChildren(...trained.map((_, layer) => {
    const group = document.createElement("fieldset");
    group.className = "layer";
    const title = document.createElement("legend");
    title.textContent = `Layer ${layer + 1}`;
    const grid = document.createElement("div");
    grid.append(...kinds.map((kind) => slider(run, layer, kind)));
    group.append(title, grid);
    return group;
  }));
}

function slider(run, layer, [name, to, from]) {
  const span = 2 * Math.max(...state.about.runs[run].flows.map((each) => Math.abs(each[to][from])));
  const input = document.createElement("input");
  const said = document.createElement("output");
  Object.assign(input, { type: "range", min: -STOPS, max: STOPS, step: 1, className: `bar ${LETTERS[run]}` });
  input.dataset.flow = `${layer + 1} ${name}`;
  const show = () => {
    const value = state.flows[run][layer][to][from];
    const share = 50 + 50 * Math.sign(value) * Math.sqrt(Math.min(1, Math.abs(value) / span));
    input.style.setProperty("--from", `${Math.min(50, share)}%`);
    input.style.setProperty("--to", `${Math.max(50, share)}%`);
    input.setAttribute("aria-valuetext", short(value));
    said.textContent = short(value);
  };
  const start = state.flows[run][layer][to][from];
  input.value = Math.round(STOPS * Math.sign(start) * Math.sqrt(Math.abs(start) / span));
  input.addEventListener("input", () => {
    const share = Number(input.value) / STOPS;
    state.flows[run][layer][to][from] = Math.sign(share) * share * share * span;
    show();
    state.moved.add(run);
    judge();
    follow();
  });
  show();
  const found = document.createElement("label");
  found.append(`${name} `, said, input);
  return found;
}

function backToTrained() {
  const run = Number(at("edited").value);
  state.flows[run] = structuredClone(state.about.runs[run].flows);
  state.moved.add(run);
  judge();
  showSliders();
  follow();
}

// --- Start

function fill(about) {
  const { limits, problem } = about;
  const starts = { n: Math.min(problem.context, limits.n[1]), dim: problem.dim, sigma: Math.min(2, limits.sigma[1] / 2), seed: 0 };
  for (const [id, value] of Object.entries(starts)) {
    [at(id).min, at(id).max] = limits[id];
    at(id).value = value;
  }
  at("dim").disabled = limits.dim[0] === limits.dim[1];
  at("layer").max = depth();
  at("layer").value = depth();
  const named = about.runs.map((run, index) => `${label(index)}: ${run.name}, ${run.kind.toUpperCase()}, ${run.layers} layer${run.layers > 1 ? "s" : ""}`);
  at("runs").replaceChildren(...[...named, `Problem: ${problem.summary}`].map((text) => Object.assign(document.createElement("p"), { textContent: text })));
  state.flows = about.runs.map((run) => structuredClone(run.flows));
  const movable = [...about.runs.keys()].filter((run) => about.runs[run].flows);
  at("edited").replaceChildren(...movable.map((run) => new Option(label(run), run)));
  at("edited-label").hidden = movable.length < 2;
}

async function start() {
  state.about = await ask("/api/about");
  fill(state.about);
  showChoices();
  showLayer();
  showSliders();
  for (const id of ["n", "dim", "sigma", "seed"]) {
    at(id).addEventListener("input", () => {
      if (!at(id).checkValidity() || at(id).value === "") return;
      showChoices();
      draw();
    });
  }
  at("layer").addEventListener("input", showLayer);
  at("back").addEventListener("click", () => step(-1));
  at("on").addEventListener("click", () => step(1));
  at("feature").addEventListener("change", () => {
    state.feature = feature();
    buildSlice();
    showContext();
  });
  at("outlier").addEventListener("click", toggleOutlier);
  at("restore").addEventListener("click", () => {
    Object.assign(state.drawn, structuredClone(state.first));
    state.outlier = null;
    follow();
  });
  at("edited").addEventListener("change", showSliders);
  at("trained").addEventListener("click", backToTrained);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width || !state.answer) return;
    width = window.innerWidth;
    buildSlice();
    showContext();
    showLosses();
  });
  await draw();
  await judgeAll();
}

start().catch(complain);
