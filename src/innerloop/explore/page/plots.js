// Plots as inline SVG. A plot's axes are those of its data; lines are told apart by colour and by dashes.

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// The lines' looks: a colour of page.css, dashes, and a marker where points are few.
export const LOOKS = {
  one: { colour: "var(--one)", dash: "", width: 3 },
  two: { colour: "var(--two)", dash: "", width: 3 },
  ols: { colour: "var(--ols)", dash: "2 4" },
  ridge: { colour: "var(--ridge)", dash: "9 4" },
  bayes: { colour: "var(--bayes)", dash: "9 3 2 3" },
};

function stroke(look) {
  return { stroke: look.colour, "stroke-dasharray": look.dash, "stroke-width": look.width ?? 2 };
}

// A number for people: three significant digits, and powers of ten only where they are needed.
export function short(value, digits = 3) {
  if (value === null || !Number.isFinite(value)) return "not finite";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-4 ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits)));
  return text.replace("-", "\u2212");
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + 1e-9 * step; at += step) found.push(Math.round(at / step) * step);
  return found;
}

function powers(low, high) {
  const tens = Math.log10(high / low);
  const every = Math.max(1, Math.ceil(tens / 6));
  const found = [];
  if (tens < 2) {
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power += 1) {
      for (const times of [1, 2, 5]) if (times * 10 ** power >= low && times * 10 ** power <= high) found.push(times * 10 ** power);
    }
    return found;
  }
  for (let power = Math.ceil(Math.log10(low) - 1e-9); 10 ** power <= high * (1 + 1e-9); power += every) found.push(10 ** power);
  return found;
}

function power(value) {
  const exponent = Math.round(Math.log10(value));
  if (exponent >= -3 && exponent <= 4) return String(Number(value.toPrecision(1)));
  return `1e${exponent}`.replace("-", "\u2212");
}

// An empty plot `width` wide, its scales, and the group that data are drawn in. `x` and `y` are [low, high]; `log` is of y.
export function axes({ width, height, x, y, log = false, xlabel, ylabel, label, role = "img", whole = false }) {
  const margin = { left: 48, right: 12, top: 24, bottom: 40 };
  const across = width - margin.left - margin.right;
  const down = height - margin.top - margin.bottom;
  const flat = log ? Math.log10 : (value) => value;
  const [low, high] = y.map(flat);
  const scale = {
    x: (value) => margin.left + ((value - x[0]) / (x[1] - x[0])) * across,
    y: (value) => margin.top + (1 - (flat(value) - low) / (high - low)) * down,
    inverse: (px, py) => [
      x[0] + ((px - margin.left) / across) * (x[1] - x[0]),
      low + (1 - (py - margin.top) / down) * (high - low),
    ],
  };
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role, "aria-label": label });
  const clip = `clip-${label.replace(/\W+/g, "-")}`;
  root.append(svg("clipPath", { id: clip }, svg("rect", { x: margin.left, y: margin.top, width: across, height: down })));
  const ground = svg("g", { "aria-hidden": "true" });
  let across_ticks = ticks(x[0], x[1], width < 420 ? 5 : 8);
  if (whole) across_ticks = across_ticks.filter(Number.isInteger);
  for (const value of across_ticks) {
    ground.append(
      svg("line", { class: "grid", x1: scale.x(value), x2: scale.x(value), y1: margin.top, y2: margin.top + down }),
      svg("text", { class: "tick", x: scale.x(value), y: margin.top + down + 16, "text-anchor": "middle" }, short(value)),
    );
  }
  for (const value of log ? powers(...y) : ticks(...y, 5)) {
    ground.append(
      svg("line", { class: "grid", x1: margin.left, x2: margin.left + across, y1: scale.y(value), y2: scale.y(value) }),
      svg("text", { class: "tick", x: margin.left - 6, y: scale.y(value) + 4, "text-anchor": "end" }, log ? power(value) : short(value)),
    );
  }
  ground.append(
    svg("rect", { class: "frame", x: margin.left, y: margin.top, width: across, height: down }),
    svg("text", { x: margin.left + across / 2, y: height - 6, "text-anchor": "middle" }, xlabel),
    svg("text", { x: 4, y: 15 }, ylabel),
  );
  const inside = svg("g", { "clip-path": `url(#${clip})` });
  root.append(ground, inside);
  return { root, inside, scale, size: { top: margin.top, bottom: margin.top + down } };
}

// A line through `points` [x, y]; what is not finite, or not positive on a log scale, breaks it.
export function line(plot, points, look, marker = null) {
  const found = svg("g", { "aria-hidden": "true" });
  let path = "";
  let pen = "M";
  for (const [x, y] of points) {
    const [px, py] = [plot.scale.x(x), y === null ? NaN : plot.scale.y(y)];
    if (Number.isFinite(px) && Number.isFinite(py)) {
      path += `${pen}${px.toFixed(2)} ${Math.max(-1e4, Math.min(1e4, py)).toFixed(2)}`;
      pen = "L";
      if (marker) {
        const fill = marker === "hollow" ? "var(--card)" : look.colour;
        found.append(svg("circle", { cx: px, cy: py, r: 4, fill, stroke: look.colour, "stroke-width": 2 }));
      }
    } else pen = "M";
  }
  found.prepend(svg("path", { class: "line", d: path, ...stroke(look) }));
  plot.inside.append(found);
}

export function legend(entries) {
  const list = document.createElement("ul");
  list.className = "legend";
  for (const { name, look, marker } of entries) {
    const sample = svg("svg", { viewBox: "0 0 42 14", "aria-hidden": "true" });
    sample.append(svg("line", { x1: 0, x2: 42, y1: 7, y2: 7, ...stroke(look) }));
    if (marker) {
      const fill = marker === "hollow" ? "var(--card)" : look.colour;
      sample.append(svg("circle", { cx: 21, cy: 7, r: 4, fill, stroke: look.colour, "stroke-width": 2 }));
    }
    const item = document.createElement("li");
    item.append(sample, name);
    list.append(item);
  }
  return list;
}

// Limits of a log axis: all `values` of a thousand times the largest `anchor` down to a thousandth, so that a model that
// blows up hides nothing.
export function logLimits(values, anchors) {
  const good = (each) => each.filter((value) => value !== null && Number.isFinite(value) && value > 0);
  const top = Math.max(...good(anchors), 1e-12);
  const high = Math.min(Math.max(...good(values), top), top * 1e3) * 1.25;
  const low = Math.max(Math.min(...good(values), top / 10) * 0.8, top * 1e-3);
  return [low, high];
}
