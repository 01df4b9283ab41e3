// The page, top to bottom.

const COLUMN = Object.fromEntries(DATA.columns.map((c, i) => [c.id, i]));
const ROW = new Map(DATA.trials.map((r) => [`${r[COLUMN.key]}:${r[COLUMN.point]}`, r]));
const KNOBS = DATA.columns.filter((c) => c.group === "knob" && new Set(DATA.trials.map((r) => r[COLUMN[c.id]])).size > 1);
const valueOf = (config, column) => {
  const row = ROW.get(`${config.trials[0].key}:${config.trials[0].point}`);
  return row ? row[COLUMN[column.id]] : null;
};
const open = (key, point) => { location.hash = address(key, point); };

function about() {
  const a = DATA.about;
  const data = a.data.map((d) => `${d.data}${d.measures.length ? ` (${d.measures.join(", ")})` : ""}`).join("; ") || "nothing trained yet";
  const examples = a.data.map((d) => Object.entries(d.examples).map(([s, n]) => `${s} ${n.toLocaleString("en")}`).join(", ")).join("; ");
  const facts = [
    ["Data", data], ["Examples evaluated", examples], ["Started", when(a.started_s)], ["Last trial ended", when(a.ended_s)],
    ["Training time, added up", a.training_s === null ? "" : span(a.training_s)],
    ["Device", a.devices.join(", ")], ["distvae", a.versions.join(", ")], ["Commit", a.commits.map((c) => c.replace(/^([0-9a-f]{12})[0-9a-f]+/, "$1")).join(", ")],
    ["Folder", DATA.out_path],
  ].filter(([, v]) => v);
  put(byId("about"), 
    el("h1", {}, a.name),
    el("p", { class: "counts" }, el("b", {}, `${a.trials.toLocaleString("en")} ${a.trials === 1 ? "trial" : "trials"}:`), Object.entries(a.counts).map(([s, n]) => status(s, `${n.toLocaleString("en")} ${s}`))),
    el("dl", { class: "facts" }, facts.map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v)))),
  );
}

function plane() {
  const planes = DATA.panels.map((panel, i) => new Plane(panel, DATA.configs.filter((c) => c.panel === i), KNOBS, valueOf, open));
  const title = (p) => `${p.panel.data} (${p.panel.measure}), ${p.panel.split} split, ${p.configs.length} ${p.configs.length === 1 ? "configuration" : "configurations"}`;
  put(byId("plane"), el("h2", {}, "Rate and distortion"),
    !planes.length && el("p", {}, "No finished trial has a valid bound on the test split: there is no curve yet."),
    planes.map((p) => el("div", { class: "two" },
      el("figure", {}, el("figcaption", {}, title(p)), p.element()), el("div", {}, best(p.configs, p.panel)))));
  return planes;
}

function best(configs, panel) {
  const found = configs.filter((c) => c.best);
  const card = (c) => el("div", { class: "card" }, el("h3", {}, "★ Best by valid bound"),
    el("dl", { class: "pairs" },
      KNOBS.filter((k) => valueOf(c, k) !== null).map((k) => [el("dt", {}, k.label), el("dd", {}, plain(valueOf(c, k)))]),
      [["valid ELBO", c.valid_elbo], ["test ELBO", c.elbo], ["test rate", c.rate], ["test distortion", c.distortion]].map(([name, v]) => [el("dt", {}, name), el("dd", {}, `${half(v)} nats`)]),
      el("dt", {}, "±"), el("dd", {}, c.seeds > 1 ? `${c.interval === "range" ? "half the range" : c.interval} over ${c.seeds} seeds` : "one seed: no interval"),
      el("dt", {}, "trials"), el("dd", {}, c.trials.map((t) => [el("a", { class: "mono", href: address(t.key, t.point) }, t.key), " "]))));
  return [
    found.length ? found.map(card) : el("p", { class: "card" }, "No validation split: nothing is selected; the frontier is of test means."),
    el("div", { class: "card small" }, el("h3", {}, "What the numbers are"),
      el("p", {}, "Rate: KL of q(z|x) to the normalised prior. Distortion: −E log p(x|z) with all constants. ELBO = −(rate + distortion), a valid bound. Nats per example, means over the whole split."),
      el("p", {}, `The valid split selects, the test split is reported. Data sets and measures (${panel.measure}) are not mixed. Nothing is ranked by a surrogate.`)),
  ];
}

function frontier() {
  const section = byId("frontier");
  put(section, el("h2", {}, "Frontier"), el("p", { class: "soft" }, "Configurations that no other beats in both mean rate and mean distortion, by increasing rate."));
  DATA.panels.forEach((panel, i) => {
    const mine = DATA.configs.filter((c) => c.panel === i && c.frontier);
    const kinds = [...new Set(mine.filter((c) => c.seeds > 1).map((c) => `${c.interval === "range" ? "half the range" : c.interval} over ${c.seeds} seeds`))].join(", ");
    const head = (name, unit, kind) => el("th", { scope: "col", class: kind }, name, el("span", { class: "unit" }, unit || "\u00a0"));
    section.append(
      el("div", { class: "scroll" }, el("table", {},
        el("caption", { class: "soft small" }, `${panel.data} (${panel.measure}), ${panel.split} split${kinds ? `; ± ${kinds}` : ""}`),
        el("thead", {}, el("tr", {}, KNOBS.map((k) => head(k.label, k.unit, k.kind)), ["rate", "distortion", "ELBO", "valid ELBO"].map((n) => head(n, "nats/example", "number")), head("seeds", "", "number"), head("trials", "", "text"))),
        el("tbody", {}, mine.map((c) => el("tr", { class: c.best && "best" },
          KNOBS.map((k) => el("td", { class: k.kind }, plain(valueOf(c, k)))),
          [c.rate, c.distortion, c.elbo, c.valid_elbo].map((v) => el("td", { class: "number" }, v ? half(v) : "")),
          el("td", { class: "number" }, c.seeds),
          el("td", {}, c.best ? "★ best " : "", c.trials.slice(0, 5).map((t) => [el("a", { href: address(t.key, t.point), "aria-label": `trial ${t.key}` }, t.seed), " "]), c.trials.length > 5 ? "…" : "")))))),
    );
  });
  if (!DATA.panels.length) section.hidden = true;
}

function trials(planes) {
  const changed = (rows) => {
    const kept = rows && new Set([...rows].map((r) => `${r[COLUMN.key]}:${r[COLUMN.point]}`));
    planes.forEach((p) => p.keep(kept));
  };
  const table = new Trials(DATA.columns, DATA.trials, open, changed);
  put(byId("trials"), el("h2", {}, "All trials"),
    el("p", { class: "soft" }, "The last epoch of each. A click on a header sorts, a click on a row opens the trial. Filters: ",
      el("code", {}, "beta<=1"), ", ", el("code", {}, "r=0,0.5"), ", ", el("code", {}, "status=finished"), ", ", el("code", {}, "mi_nats=null"), ", or any word; below a header ",
      el("code", {}, "<=1"), " or ", el("code", {}, "0.1..1"), "."),
    table.element());
}

function pictures() {
  const [ofSweep, ofTrials] = [DATA.pictures.filter((p) => !p.trial), DATA.pictures.filter((p) => p.trial)];
  put(byId("pictures"), el("h2", {}, "Pictures"),
    ofSweep.length ? figures(ofSweep) : el("p", {}, "None: nothing has been drawn."),
    ofTrials.length > 0 && el("p", { class: "soft" }, "Of single trials: ", [...new Set(ofTrials.map((p) => p.trial))].map((key) => [el("a", { class: "mono", href: address(key, 0) }, key), " "])));
}

function commands() {
  const r = DATA.about.report;
  put(byId("commands"), el("h2", {}, "Do it again"),
    el("dl", { class: "commands" }, DATA.commands.map(([what, line]) => [el("dt", { class: "small soft" }, what), el("dd", {}, code(`${line}\n`))])),
    DATA.sweep_yaml && [el("h3", {}, "The sweep, as it was understood"), code(DATA.sweep_yaml, "sweep.yaml")],
    el("p", { class: "small soft" }, `Page made ${when(r.made_s)} by distvae ${r.distvae}${r.git_sha ? ` (${r.git_sha})` : ""}, Python ${r.python}${r.torch ? `, torch ${r.torch}` : ""}, on ${r.machine}. A view of the record in points/*.parquet.`));
}

/** The trial that the address names opens; another address closes it. */
function route() {
  const dialog = byId("trial");
  const asked = new URLSearchParams(location.hash.slice(1));
  if (!asked.has("trial")) { if (dialog.open) dialog.close(); return; }
  const row = ROW.get(`${asked.get("trial")}:${asked.get("point") || 0}`) || DATA.trials.find((r) => r[COLUMN.key] === asked.get("trial"));
  if (dialog.open) dialog.close("next");
  if (row) showTrial(row, COLUMN, address);
}

about();
trials(plane());
frontier();
pictures();
commands();
byId("trial").addEventListener("close", (e) => {
  if (e.target.returnValue !== "next") history.replaceState(null, "", location.pathname + location.search + "#trials");
  e.target.returnValue = "";
});
for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("click", (e) => e.target === dialog && dialog.close());
addEventListener("hashchange", route);
route();
