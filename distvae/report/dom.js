// Elements and numbers. Text reaches the page as text nodes and attributes only: nothing here parses HTML.

const DATA = JSON.parse(document.getElementById("data").textContent);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child.nodeType ? child : String(child));
  }
  return node;
}

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const byId = (id) => document.getElementById(id);
const put = (node, ...children) => { node.replaceChildren(); return fill(node, {}, children); };

const trim = (v, digits) => String(+v.toPrecision(digits)).replace("-", "−");

/** Of a knob or a counter: as people write it. */
const plain = (v) => (v === null || v === undefined ? "" : typeof v === "number" ? trim(v, 7) : String(v));

/** Of a column of measurements: the same decimals for all, five digits for the largest, at least two for any. */
function measure(values) {
  const largest = Math.max(...values.filter((v) => v !== null).map(Math.abs), 0);
  const decimals = largest ? Math.min(6, Math.max(0, 4 - Math.floor(Math.log10(largest)))) : 0;
  const whole = values.every((v) => v === null || Number.isInteger(v));
  return (v) => {
    if (v === null || v === undefined) return "";
    if (whole || v === 0) return trim(v, 15);
    if (Math.abs(v) * 10 ** decimals < 10) return trim(v, 2);
    return v.toFixed(decimals).replace("-", "−");
  };
}

const withUnit = (name, unit) => (unit ? `${name}, ${unit}` : name);
const when = (s) => (s === null ? "not recorded" : new Date(s * 1000).toISOString().replace("T", " ").slice(0, 16) + " UTC");
const span = (s) => (s < 90 ? `${trim(s, 3)} s` : s < 5400 ? `${trim(s / 60, 3)} min` : `${trim(s / 3600, 3)} h`);
const status = (name, text = name) => el("span", { class: `status status-${String(name).replace(/\W+/g, "-")}` }, text);

/** Text to copy, and to save as a file if it has a name. */
function code(text, file) {
  const pre = el("pre", { tabindex: 0 }, text);
  const copy = el("button", { type: "button", onclick: () => copied(pre, copy) }, "Copy");
  const save = file && el("button", { type: "button", onclick: () => download(file, text) }, "Save");
  return el("div", { class: "code" }, pre, el("div", { class: "tools" }, save, copy));
}

async function copied(pre, button) {
  try {
    await navigator.clipboard.writeText(pre.textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  } catch {
    getSelection().selectAllChildren(pre); // no clipboard here: Ctrl-C does it
  }
}

function download(file, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  const link = el("a", { href: url, download: file });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function figures(pictures) {
  return el("div", { class: "pictures" }, pictures.map((p) => {
    const image = () => el("img", { src: p.uri, alt: `${p.title}${p.trial ? ` of trial ${p.trial}` : ""}` });
    return el("figure", {}, el("button", { type: "button", onclick: () => enlarge(p, image()) }, image()), el("figcaption", {}, p.file));
  }));
}

function enlarge(p, image) {
  const dialog = byId("picture");
  const close = el("button", { class: "close", type: "button", onclick: () => dialog.close() }, "Close");
  put(dialog, el("div", { class: "bar" }, el("span", { class: "soft" }, p.file), close), image);
  dialog.showModal();
}
