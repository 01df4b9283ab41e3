// The table of all trials: sorted, filtered, its columns chosen. Rows are made as they scroll into view, so thousands
// stay quick.

const CHUNK = 150;

class Trials {
  constructor(columns, rows, opened, changed) {
    Object.assign(this, { columns, rows, opened, changed });
    this.text = columns.map((c, i) => (c.group === "metric" || c.id === "wall_s" ? measure(rows.map((r) => r[i])) : plain));
    this.visible = new Set(columns.filter((c) => c.shown).map((c) => c.id));
    this.cells = new Map(); // column id -> what is typed in its filter
    this.query = "";
    this.sort = null; // {id, down}
    this.key = columns.findIndex((c) => c.id === "key");
    this.point = columns.findIndex((c) => c.id === "point");
    this.body = el("tbody", { onclick: (e) => this.click(e) });
    this.head = el("thead");
    this.count = el("span", { class: "soft", role: "status" });
    this.problem = el("span", { class: "problem", role: "alert" });
    this.end = el("div"); // in view: more rows are wanted
    this.scroll = el("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": "table of trials" }, el("table", { id: "all" }, this.head, this.body), this.end);
    new IntersectionObserver((seen) => seen.some((s) => s.isIntersecting) && this.more(), { root: this.scroll, rootMargin: "600px" }).observe(this.end);
    this.header();
    this.update();
  }

  element() {
    const search = el("input", {
      type: "search", id: "filter", "aria-label": "filter the trials", placeholder: "filter:  beta<=1  r=0,0.5  status=finished  any word",
      oninput: (e) => { this.query = e.target.value; this.update(); },
    });
    return [el("div", { class: "bar" }, search, this.count, this.problem, this.chooser()), this.scroll];
  }

  chooser() {
    const box = (c) =>
      el("label", { title: c.doc },
        el("input", { type: "checkbox", value: c.id, checked: this.visible.has(c.id), onchange: (e) => this.show(c.id, e.target.checked) }),
        ` ${c.label}`, c.split && el("span", { class: "soft" }, ` ${c.split}`), c.surrogate && [" ", el("span", { class: "badge" }, "surrogate")]);
    return el("details", { class: "chooser" }, el("summary", {}, "Columns"), el("div", {}, this.columns.map(box)));
  }

  show(id, on) {
    if (on) this.visible.add(id);
    else { this.visible.delete(id); this.cells.delete(id); }
    this.header();
    this.update();
  }

  header() {
    this.shown = this.columns.map((c, i) => [c, i]).filter(([c]) => this.visible.has(c.id));
    const label = (c) =>
      el("th", { scope: "col", class: c.kind, "data-column": c.id, title: c.doc },
        el("button", { type: "button", onclick: () => this.order(c.id) },
          el("span", { class: "label" }, c.label), c.surrogate && [" ", el("span", { class: "badge" }, "surrogate")],
          el("span", { class: "unit" }, [c.split, c.unit].filter(Boolean).join(" · ") || "\u00a0")));
    const input = (c) =>
      el("th", {}, el("input", {
        type: "text", "aria-label": `filter ${c.label}`, value: this.cells.get(c.id) || "", placeholder: c.kind === "number" ? "<=" : "",
        oninput: (e) => { this.cells.set(c.id, e.target.value); this.update(); },
      }));
    put(this.head, el("tr", {}, this.shown.map(([c]) => label(c))), el("tr", { class: "filters" }, this.shown.map(([c]) => input(c))));
    this.marks();
  }

  /** A first click sorts a number down and a text up, a second the other way, a third gives the plan's order back. */
  order(id) {
    const first = this.columns.find((c) => c.id === id).kind === "number";
    const old = this.sort && this.sort.id === id ? this.sort.down : null;
    this.sort = old === null ? { id, down: first } : old === first ? { id, down: !first } : null;
    this.marks();
    this.update();
  }

  marks() {
    for (const th of this.head.rows[0].cells) {
      const mine = this.sort && this.sort.id === th.dataset.column;
      th.setAttribute("aria-sort", mine ? (this.sort.down ? "descending" : "ascending") : "none");
    }
  }

  update() {
    const whole = parseFilter(this.query, this.columns);
    const filters = [whole];
    this.shown.forEach(([c, i], at) => {
      const one = parseCell(this.cells.get(c.id) || "", c, i);
      this.head.rows[1].cells[at].firstChild.setAttribute("aria-invalid", one.problems.length > 0);
      filters.push(one);
    });
    this.matched = this.rows.filter((row) => filters.every((f) => f.test(row)));
    this.order_(this.matched);
    const sorted = this.sort && this.columns.find((c) => c.id === this.sort.id);
    const note = sorted && sorted.surrogate ? "; sorted by a surrogate: no ranking" : "";
    this.count.textContent = `${this.matched.length} of ${this.rows.length} rows${note}`;
    this.problem.textContent = whole.problems.join("; ");
    this.body.replaceChildren();
    this.more();
    this.scroll.scrollTop = 0;
    this.changed(this.matched.length < this.rows.length ? new Set(this.matched) : null);
  }

  /** In place, stable; what is null comes last in both directions. */
  order_(rows) {
    if (!this.sort) return;
    const i = this.columns.findIndex((c) => c.id === this.sort.id);
    const number = this.columns[i].kind === "number";
    const sign = this.sort.down ? -1 : 1;
    const compare = number ? (a, b) => a - b : (a, b) => String(a).localeCompare(String(b));
    rows.sort((x, y) => {
      const a = x[i], b = y[i];
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * compare(a, b);
    });
  }

  more() {
    const from = this.body.rows.length;
    this.body.append(...this.matched.slice(from, from + CHUNK).map((row) => this.line(row)));
  }

  line(row) {
    const cell = ([c, i]) => {
      if (c.id === "key") return el("td", {}, el("a", { class: "mono", href: address(row[this.key], row[this.point]) }, row[i]));
      if (c.id === "status") return el("td", {}, status(row[i]));
      return el("td", { class: c.kind + (c.surrogate ? " surrogate" : "") }, this.text[i](row[i]));
    };
    return el("tr", { "data-key": row[this.key], "data-point": row[this.point] }, this.shown.map(cell));
  }

  click(event) {
    const line = event.target.closest("tr");
    if (line && !event.target.closest("a") && !getSelection().toString()) this.opened(line.dataset.key, line.dataset.point);
  }
}

/** The address of a trial in this page. */
const address = (key, point) => `#trial=${encodeURIComponent(key)}${+point ? `&point=${point}` : ""}`;
