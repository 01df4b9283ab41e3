// One trial: what it measured, its curve over epochs, its pictures, its whole configuration and how to run it again.

const HISTORY = Object.fromEntries(DATA.history_columns.map((c, i) => [c.id, i]));
const AT = ["point", "split", "epoch", "step"];
const SPLIT_STYLE = { train: ["#0072b2", ""], valid: ["#e69f00", "6 4"], test: ["#009e73", "2 3"] };

function showTrial(row, column, address) {
  const dialog = byId("trial");
  const [key, point, ended] = [row[column.key], row[column.point], row[column.status]];
  const passes = (DATA.history[key] || []).filter((r) => r[HISTORY.point] === point);
  const pictures = DATA.pictures.filter((p) => p.trial === key);
  const close = el("button", { class: "close", type: "button", onclick: () => dialog.close() }, "Close");
  put(dialog,
    el("div", { class: "top" }, el("h2", { id: "trial-title" }, "Trial ", el("span", { class: "mono" }, key)), status(ended), close),
    el("p", {}, knobs(row).join(", ") || "the only configuration"),
    kin(key, point, address),
    why(key, ended),
    el("div", { class: "two" },
      el("div", {}, passes.length ? [el("h3", {}, "Last epoch"), lastEpoch(passes), curve(passes), rowsOf(passes)] : el("p", {}, "Nothing has been measured.")),
      el("div", {}, again(key))),
    el("h3", {}, "Pictures"),
    pictures.length ? figures(pictures) : none(key),
  );
  dialog.showModal();
  dialog.scrollTop = 0;
}

const knobs = (row) => DATA.columns.map((c, i) => [c, row[i]]).filter(([c, v]) => c.group === "knob" && v !== null).map(([c, v]) => `${c.label} = ${plain(v)}`);

/** The other seeds of the same configuration. */
function kin(key, point, address) {
  const [, body] = DATA.trial_yaml[key];
  const mine = Object.entries(DATA.trial_yaml).filter(([k, [, b]]) => b === body && k !== key).sort((a, b) => a[1][0] - b[1][0]).slice(0, 50);
  const link = ([k, [seed]]) => [" ", el("a", { href: address(k, point) }, `seed ${seed}`)];
  return mine.length ? el("p", { class: "small" }, `This is seed ${DATA.trial_yaml[key][0]}; the same configuration with`, mine.map(link)) : null;
}

function why(key, ended) {
  const log = `its log: ${DATA.out}/logs/${key}.jsonl`;
  const told = {
    failed: `It failed${DATA.about.errors[key] ? ` with ${DATA.about.errors[key]}` : ""}; ${log}. The same sweep command tries it again.`,
    diverged: `Its loss stopped being finite: a result, but on no frontier; ${log}.`,
    stopped: "A scheduler ended it early: its bounds are valid, but of a model that was not trained to the protocol's end, so it is on no frontier.",
    "to run": "It is planned and has not ended.",
  }[ended];
  return told ? el("p", {}, told) : null;
}

function lastEpoch(passes) {
  const splits = ["test", "valid", "train"].filter((s) => passes.some((r) => r[HISTORY.split] === s));
  const last = splits.map((s) => passes.filter((r) => r[HISTORY.split] === s).at(-1));
  const metrics = DATA.history_columns.filter((c) => !AT.includes(c.id) && !c.id.endsWith("_se") && last.some((r) => r[HISTORY[c.id]] !== null));
  const line = (c) => {
    const error = HISTORY[c.id.replace(/_nats$/, "") + "_se"];
    const text = measure(last.map((r) => r[HISTORY[c.id]]));
    const cell = (r) => el("td", { class: "number" }, text(r[HISTORY[c.id]]), error !== undefined && r[error] ? el("span", { class: "soft" }, ` ±${trim(r[error], 2)}`) : null);
    return el("tr", { class: c.surrogate && "surrogate-row" },
      el("th", { scope: "row", title: c.doc }, c.id, c.surrogate && [" ", el("span", { class: "badge" }, "surrogate")], el("span", { class: "unit" }, c.unit)), last.map(cell));
  };
  return [
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "metric"), splits.map((s, i) => el("th", { scope: "col", class: "number" }, s, el("span", { class: "unit" }, `epoch ${last[i][HISTORY.epoch]}`))))),
      el("tbody", {}, metrics.map(line)))),
    el("p", { class: "small soft" }, "± standard errors over examples; none over seeds, this is one."),
  ];
}

function curve(passes) {
  const metrics = DATA.history_columns.filter((c) => !AT.includes(c.id) && !c.id.endsWith("_se") && passes.some((r) => r[HISTORY[c.id]] !== null));
  if (!metrics.length) return null;
  let chosen = metrics.find((c) => c.id === "elbo_nats") || metrics[0];
  const figure = el("div", { class: "training" });
  const draw = () => put(figure, lines(passes, chosen));
  const choose = el("select", { onchange: (e) => { chosen = metrics.find((c) => c.id === e.target.value); draw(); } },
    metrics.map((c) => el("option", { value: c.id, selected: c === chosen }, c.id + (c.surrogate ? " (surrogate)" : ""))));
  draw();
  return [el("h3", {}, "Training"), el("div", { class: "bar" }, el("label", {}, "Metric: ", choose)), figure];
}

function lines(passes, metric) {
  const box = { width: 560, height: 260, left: 78, right: 12, top: 8, bottom: 42 };
  const at = HISTORY[metric.id];
  const shown = passes.filter((r) => r[at] !== null);
  const { x, y, axes } = frame(box, shown.map((r) => r[HISTORY.epoch]), shown.map((r) => r[at]), "epoch", withUnit(metric.id, metric.unit));
  const drawn = Object.entries(SPLIT_STYLE).map(([split, [colour, dash]]) => {
    const mine = shown.filter((r) => r[HISTORY.split] === split).map((r) => [x(r[HISTORY.epoch]), y(r[at])]);
    return mine.length ? [split, colour, dash, mine] : null;
  }).filter(Boolean);
  const picture = svg("svg", { viewBox: `0 0 ${box.width} ${box.height}`, role: "img", "aria-label": `${metric.id} over epochs` }, axes,
    drawn.map(([, colour, dash, mine]) => [
      svg("path", { class: "curve", stroke: colour, "stroke-dasharray": dash, d: mine.map((p, i) => `${i ? "L" : "M"}${p.join(" ")}`).join("") }),
      mine.length <= 30 ? mine.map(([cx, cy]) => svg("circle", { cx, cy, r: 2.6, fill: colour })) : [],
    ]));
  const key = ([split, colour, dash]) => el("span", {}, svgKey(colour, dash), ` ${split}`);
  return [picture, el("div", { class: "legend" }, drawn.map(key), DATA.thinned && el("span", { class: "soft" }, "at most 50 passes of a trial are shown"))];
}

function svgKey(colour, dash) {
  const mark = svg("svg", { viewBox: "0 0 30 8", "aria-hidden": "true" }, svg("path", { class: "curve", stroke: colour, "stroke-dasharray": dash, d: "M0 4H30" }));
  Object.assign(mark.style, { display: "inline-block", width: "30px" });
  return mark;
}

function rowsOf(passes) {
  const used = DATA.history_columns.filter((c) => c.id !== "point" && passes.some((r) => r[HISTORY[c.id]] !== null));
  const text = used.map((c) => (AT.includes(c.id) ? plain : measure(passes.map((r) => r[HISTORY[c.id]]))));
  const number = (c) => (c.id === "split" ? "text" : "number");
  return el("details", {}, el("summary", {}, `Rows of its epochs (${passes.length})`),
    el("div", { class: "scroll rows", tabindex: 0 }, el("table", {},
      el("thead", {}, el("tr", {}, used.map((c) => el("th", { scope: "col", class: number(c), title: c.doc }, c.id, el("span", { class: "unit" }, c.surrogate ? `surrogate · ${c.unit}` : c.unit))))),
      el("tbody", {}, passes.map((r) => el("tr", {}, used.map((c, i) => el("td", { class: number(c) + (c.surrogate ? " surrogate" : "") }, text[i](r[HISTORY[c.id]])))))))));
}

/** The trial as a sweep of one. */
function trialYaml(key) {
  const [seed, body] = DATA.trial_yaml[key];
  return `name: trial-${key}\n${DATA.bodies[body]}seeds: [${seed}]\n`;
}

function again(key) {
  const file = `trial-${key}.yaml`;
  const python = ["import distvae", "", `result = distvae.train("${file}")`, "result.rows, result.model  # a pyarrow Table, a torch module"];
  if (DATA.kept.includes(key)) python.push("", "# as it was trained here: nothing is run", `result = distvae.train("${file}", out=${JSON.stringify(DATA.out_path)})`);
  return [
    el("h3", {}, "Configuration"), code(trialYaml(key), file),
    el("h3", {}, "Run it again"), el("p", { class: "small soft" }, `Save ${file}; its trial has the same key, so the same rows.`),
    code(`distvae sweep ${file} --out runs/trial-${key}\n`), code(python.join("\n") + "\n"),
  ];
}

const none = (key) => [el("p", { class: "soft" }, "None has been drawn. Samples, then this page anew:"),
  code(`distvae plot ${DATA.out} --kind samples --trial ${key}\ndistvae report ${DATA.out}\n`)];
