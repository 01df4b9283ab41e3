// The rate-distortion plane: every configuration's mean over seeds with its interval, single seeds faint, the frontier
// ringed, its lower hull, a star for the best by valid bound.

const VIRIDIS = ["#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const OKABE_ITO = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999"];
const BOX = { width: 800, height: 520, left: 64, right: 14, top: 12, bottom: 48 };
const SEEDS = 4000; // beyond, only the means are drawn

function viridis(t) {
  const at = Math.min(Math.max(t, 0), 1) * (VIRIDIS.length - 1);
  const i = Math.min(Math.floor(at), VIRIDIS.length - 2);
  const part = (hex, k) => parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16);
  const mix = [0, 1, 2].map((k) => Math.round(part(VIRIDIS[i], k) + (at - i) * (part(VIRIDIS[i + 1], k) - part(VIRIDIS[i], k))));
  return `rgb(${mix.join(",")})`;
}

/** {colour(value), legend} of a knob's values. */
function palette(all, number) {
  const levels = [...new Set(all.filter((v) => v !== null))].sort(number ? (a, b) => a - b : undefined);
  const swatch = (v, colour) => el("span", {}, dot(colour), plain(v));
  if (number && levels.length > 8) {
    const [low, high] = [levels[0], levels[levels.length - 1]];
    const f = low > 0 && high / low > 20 ? Math.log : (v) => v;
    const ramp = el("span", { class: "ramp" });
    ramp.style.background = `linear-gradient(90deg, ${VIRIDIS.join(",")})`;
    return {
      colour: (v) => (v === null ? "#999" : viridis((f(v) - f(low)) / (f(high) - f(low)))),
      legend: el("span", {}, plain(low), ramp, plain(high), f === Math.log ? " (logarithmic)" : ""),
    };
  }
  const shade = (i) => (number ? viridis(levels.length > 1 ? i / (levels.length - 1) : 0.5) : OKABE_ITO[i % OKABE_ITO.length]);
  return { colour: (v) => (v === null ? "#999" : shade(levels.indexOf(v))), legend: levels.map((v, i) => swatch(v, shade(i))) };
}

function dot(colour) {
  const mark = el("span", { class: "swatch" });
  mark.style.background = colour;
  return mark;
}

/** Round numbers in [low, high], about n of them. */
function ticks(low, high, n, whole) {
  const raw = Math.max((high - low) / n || 1, whole ? 1 : 0);
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find((k) => k * unit >= raw);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(k * step);
  return found;
}

/** Scales and axes of a chart: {x, y, axes, limits}. */
function frame(box, xs, ys, xLabel, yLabel) {
  const extent = (v) => {
    const low = Math.min(...v), high = Math.max(...v), pad = 0.05 * (high - low || Math.abs(high) || 1);
    return [low - pad, high + pad];
  };
  const [x0, x1] = extent(xs), [y0, y1] = extent(ys);
  const right = box.width - box.right, bottom = box.height - box.bottom;
  const x = (v) => box.left + ((v - x0) / (x1 - x0)) * (right - box.left);
  const y = (v) => bottom - ((v - y0) / (y1 - y0)) * (bottom - box.top);
  const axes = [
    ticks(x0, x1, 7, xs.every(Number.isInteger)).map((v) => svg("g", { class: "tick" },
      svg("line", { x1: x(v), x2: x(v), y1: box.top, y2: bottom }),
      svg("text", { x: x(v), y: bottom + 17, "text-anchor": "middle" }, trim(v, 6)))),
    ticks(y0, y1, 6).map((v) => svg("g", { class: "tick" },
      svg("line", { x1: box.left, x2: right, y1: y(v), y2: y(v) }),
      svg("text", { x: box.left - 7, y: y(v) + 4, "text-anchor": "end" }, trim(v, 6)))),
    svg("text", { x: (box.left + right) / 2, y: box.height - 6, "text-anchor": "middle" }, xLabel),
    svg("text", { transform: `translate(14 ${(box.top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yLabel),
  ];
  return { x, y, axes, limits: { x0, x1, y0, y1 } };
}

class Plane {
  constructor(panel, configs, knobs, valueOf, opened) {
    Object.assign(this, { panel, configs, knobs, valueOf, opened });
    this.knob = knobs.reduce((a, b) => (this.levels(b) > this.levels(a) ? b : a), knobs[0]);
    this.figure = el("div");
    this.draw();
  }

  levels(c) { return new Set(this.configs.map((k) => this.valueOf(k, c))).size; }

  element() {
    const choose = el("select", { onchange: (e) => { this.knob = this.knobs.find((c) => c.id === e.target.value); this.draw(); } },
      this.knobs.map((c) => el("option", { value: c.id, selected: c === this.knob }, c.label)));
    return [this.knobs.length > 1 && el("div", { class: "bar" }, el("label", {}, "Colour: ", choose)), this.figure];
  }

  draw() {
    const { configs, panel } = this;
    const trials = configs.flatMap((c) => c.trials);
    const few = trials.length <= SEEDS ? trials : [];
    const { x, y, axes, limits } = frame(BOX, [...configs.map((c) => c.rate[0]), ...few.map((t) => t.rate)],
      [...configs.map((c) => c.distortion[0]), ...few.map((t) => t.distortion)],
      "rate KL(q‖p), nats per example", "distortion −E log p(x|z), nats per example");
    const hues = this.knob ? palette(configs.map((c) => this.valueOf(c, this.knob)), this.knob.kind === "number") : null;
    const top = Math.max(...configs.map((c) => c.elbo[0]));
    const points = configs.map((c) => this.point(c, x, y, hues ? hues.colour(this.valueOf(c, this.knob)) : OKABE_ITO[0], few.length > 0));
    this.marks = points;
    const order = configs.map((c, i) => [c.best * 2 + c.frontier, i]).sort((a, b) => a[0] - b[0]).map(([, i]) => points[i]);
    const iso = this.iso(top, limits, x, y);
    const picture = svg("svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "group", "aria-label": `rate against distortion, ${panel.data}` },
      axes, iso, svg("path", { class: "hull", d: panel.hull.map(([r, d], i) => `${i ? "L" : "M"}${x(r)} ${y(d)}`).join("") }), order);
    const seeds = [...new Set(configs.map((c) => c.seeds))].sort((a, b) => a - b).join(", ");
    const bars = [...new Set(configs.map((c) => c.interval))].join(" or ");
    put(this.figure, picture,
      el("div", { class: "legend" }, this.knob && el("b", {}, this.knob.label), hues && hues.legend),
      el("div", { class: "legend soft" },
        `Ringed: on the frontier. ★ best by valid bound. Line: lower convex hull. Dotted: ELBO = ${trim(top, 5)} nats, the highest mean. ` +
        `Bars: ${bars} over seeds (${seeds} a configuration)${few.length ? "; small dots: single seeds" : ""}.`));
  }

  iso(top, { x0, x1, y0, y1 }, x, y) {
    const at = [[x0, -top - x0], [x1, -top - x1], [-top - y1, y1], [-top - y0, y0]];
    const ends = at.filter(([r, d]) => r >= x0 - 1e-9 && r <= x1 + 1e-9 && d >= y0 - 1e-9 && d <= y1 + 1e-9).sort((a, b) => a[0] - b[0]);
    if (ends.length < 2) return null;
    const [a, b] = [ends[0], ends[ends.length - 1]];
    return svg("line", { class: "iso", x1: x(a[0]), y1: y(a[1]), x2: x(b[0]), y2: y(b[1]) });
  }

  point(c, x, y, colour, seeds) {
    const [r, d] = [x(c.rate[0]), y(c.distortion[0])];
    const open = () => this.opened(c.trials[0].key, c.trials[0].point);
    const mean = c.best ? svg("path", { class: "mean", fill: colour, d: star(r, d, 11) }) : svg("circle", { class: "mean", cx: r, cy: d, r: c.frontier ? 6 : 5, fill: colour });
    return svg("g", {
      class: `config${c.frontier ? " on" : ""}`, role: "link", tabindex: c.frontier || c.best ? 0 : -1, "aria-label": this.told(c).join(", "),
      onclick: open, onkeydown: (e) => e.key === "Enter" && open(),
      onmousemove: (e) => tip(this.told(c), e.clientX, e.clientY), onmouseleave: () => tip(null),
      onfocus: (e) => { const at = e.target.getBoundingClientRect(); tip(this.told(c), at.right, at.bottom); }, onblur: () => tip(null),
    },
      svg("line", { class: "span", x1: x(c.rate[1]), x2: x(c.rate[2]), y1: d, y2: d }),
      svg("line", { class: "span", x1: r, x2: r, y1: y(c.distortion[1]), y2: y(c.distortion[2]) }),
      seeds && c.seeds > 1 ? c.trials.map((t) => svg("circle", { class: "seed", cx: x(t.rate), cy: y(t.distortion), r: 2, fill: colour })) : [],
      mean);
  }

  told(c) {
    const knobs = this.knobs.filter((k) => this.valueOf(c, k) !== null).map((k) => `${k.label} ${plain(this.valueOf(c, k))}`);
    return [knobs.join(", "), `rate ${half(c.rate)} nats`, `distortion ${half(c.distortion)} nats`, `ELBO ${half(c.elbo)} nats`,
      c.valid_elbo ? `valid ELBO ${half(c.valid_elbo)} nats` : "no valid split", `${c.seeds} ${c.seeds > 1 ? `seeds, ± ${c.interval}` : "seed"}`,
      ...(c.best ? ["best by valid bound"] : []), ...(c.frontier ? ["on the frontier"] : [])].filter(Boolean);
  }

  /** Fade the configurations none of whose trials is in `kept`; null: none. */
  keep(kept) {
    this.configs.forEach((c, i) => this.marks[i].classList.toggle("dim", kept !== null && !c.trials.some((t) => kept.has(`${t.key}:${t.point}`))));
  }
}

function star(x, y, size) {
  const at = (i) => [x + Math.sin((i * Math.PI) / 5) * (i % 2 ? 0.45 : 1) * size, y - Math.cos((i * Math.PI) / 5) * (i % 2 ? 0.45 : 1) * size];
  return `M${[...Array(10).keys()].map((i) => at(i).join(" ")).join("L")}Z`;
}

/** `mean ±half` of [mean, low, high]. */
function half([mean, low, high]) {
  const text = mean.toFixed(2).replace("-", "−");
  return high > low ? `${text} ±${((high - low) / 2).toFixed(2)}` : text;
}

function tip(lines, x, y) {
  const box = byId("tip");
  box.hidden = lines === null;
  if (lines === null) return;
  box.textContent = lines.join("\n");
  const { offsetWidth: w, offsetHeight: h } = box;
  box.style.left = `${Math.max(4, x + 16 + w > innerWidth ? x - w - 16 : x + 16)}px`;
  box.style.top = `${Math.max(4, y + 16 + h > innerHeight ? y - h - 16 : y + 16)}px`;
}
