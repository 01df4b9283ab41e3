// The filter: terms with spaces between, all of which must hold. `beta<=1`, `status=finished`, `r=0,0.5` (one of),
// `vae.prior.type!=normal`, `mi_nats=null`, `data~digit` (contains); any other word is looked for in all columns.

const OPS = /^([^<>=!~]+?)(<=|>=|!=|=|<|>|~)(.*)$/;

/** {test(row), problems} of what was typed. Columns are found by id or label, without case. */
function parseFilter(text, columns) {
  const tests = [];
  const problems = [];
  for (const word of text.match(/(?:[^\s"]|"[^"]*"?)+/g) || []) {
    const term = word.replace(/"/g, "");
    const m = OPS.exec(term);
    if (!m) {
      const wanted = term.toLowerCase();
      tests.push((row) => row.some((v) => v !== null && String(v).toLowerCase().includes(wanted)));
      continue;
    }
    const i = findColumn(m[1], columns);
    if (i < 0) problems.push(`no column “${m[1]}”`);
    else if (!m[3] && m[2] !== "=" && m[2] !== "!=") problems.push(`${m[1]}${m[2]} what?`);
    else if (!comparable(columns[i], m[2], m[3])) problems.push(`“${m[3]}” is not a number`);
    else tests.push(comparison(i, columns[i], m[2], m[3]));
  }
  return { test: (row) => tests.every((t) => t(row)), problems };
}

/** Of one column: `<=1`, `0.5,1`, `0.1..1` (both ends), or text that it contains. */
function parseCell(text, column, i) {
  const typed = text.trim();
  const m = /^(<=|>=|!=|=|<|>|~)\s*(.*)$/.exec(typed);
  const number = column.kind === "number";
  if (!typed) return { test: () => true, problems: [] };
  const range = number && /^([^.]+(?:\.\d+)?)\.\.(.+)$/.exec(typed);
  const parts = range ? [[">=", range[1]], ["<=", range[2]]] : m ? [[m[1], m[2]]] : [[number ? "=" : "~", typed]];
  if (parts.some(([op, value]) => value === "" || !comparable(column, op, value))) return { test: () => true, problems: [typed] };
  const tests = parts.map(([op, value]) => comparison(i, column, op, value));
  return { test: (row) => tests.every((t) => t(row)), problems: [] };
}

function findColumn(name, columns) {
  const wanted = name.trim().toLowerCase();
  const found = columns.findIndex((c) => c.id.toLowerCase() === wanted);
  return found >= 0 ? found : columns.findIndex((c) => c.label.toLowerCase() === wanted);
}

const values = (text) => text.split(",").map((v) => v.trim());
const isNumber = (v) => v !== "" && Number.isFinite(+v);

function comparable(column, op, text) {
  if (column.kind !== "number" || op === "~") return true;
  if (op === "=" || op === "!=") return values(text).every((v) => v === "" || v === "null" || isNumber(v));
  return isNumber(text);
}

function comparison(i, column, op, text) {
  if (op === "~") return (row) => row[i] !== null && String(row[i]).toLowerCase().includes(text.toLowerCase());
  if (op === "=" || op === "!=") {
    const among = values(text).map((v) => {
      if (v === "" || v === "null") return (x) => x === null;
      if (column.kind === "number") return (x) => x !== null && Math.abs(x - v) <= 1e-9 * Math.max(1, Math.abs(v));
      return (x) => x !== null && String(x).toLowerCase() === v.toLowerCase();
    });
    return (row) => among.some((is) => is(row[i])) === (op === "=");
  }
  const at = column.kind === "number" ? +text : text;
  const holds = { "<": (x) => x < at, ">": (x) => x > at, "<=": (x) => x <= at, ">=": (x) => x >= at }[op];
  return (row) => row[i] !== null && holds(row[i]); // what was not measured is neither below nor above
}
