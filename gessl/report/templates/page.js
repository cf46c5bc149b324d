"use strict";
// A click on a number, or on a point of a figure, draws what made it. Everything drawn is an entry of the section
// "Lineage", and every edge is a link there; without this script the links lead to the entries.
const SVG = "http://www.w3.org/2000/svg";
const BOX = { width: 146, height: 52, right: 30, below: 10 };
const dialog = document.getElementById("origin");
const target = (link) => document.getElementById(link.getAttribute("href").slice(1));

function sourcesOf(entry) {
  if (entry.dataset.kind === "score") return [entry.closest("article")];
  const links = entry.querySelectorAll(":scope > .from a");
  return [...new Set([...links].map(target))];
}

// All entries that `root` comes from, with the length of the longest way to each, and those that each comes from.
function ancestry(root) {
  const depth = new Map();
  const behind = new Map();
  const place = (entry, level) => {
    if (level <= (depth.get(entry) ?? -1)) return;
    depth.set(entry, level);
    sourcesOf(entry).forEach((source) => place(source, level + 1));
  };
  const collect = (entry) => {
    if (!behind.has(entry)) {
      const sources = sourcesOf(entry);
      behind.set(entry, new Set([...sources, ...sources.flatMap((source) => [...collect(source)])]));
    }
    return behind.get(entry);
  };
  place(root, 0);
  collect(root);
  return { depth, behind };
}

function words(entry) {
  const cells = [...entry.children].map((child) => child.textContent);
  if (entry.dataset.kind === "number") return ["number", cells[1], cells[0]];
  if (entry.dataset.kind === "score") return [cells[1], ...cells[2].split(/ · (?=[^·]*$)/).reverse()];
  return [entry.dataset.kind, entry.querySelector("h4 code").textContent, entry.dataset.note];
}

function add(parent, name, attributes, text) {
  const element = parent.appendChild(document.createElementNS(SVG, name));
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text.length > 22 ? `${text.slice(0, 10)}…${text.slice(-10)}` : text;
  return element;
}

function draw(root) {
  const { depth, behind } = ancestry(root);
  const columns = [];
  depth.forEach((level, entry) => (columns[level] ??= []).push(entry));
  const height = Math.max(...columns.map((column) => column.length)) * (BOX.height + BOX.below);
  const width = columns.length * (BOX.width + BOX.right) - BOX.right;
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", `-1 -1 ${width + 2} ${height + 2}`);
  picture.style.minWidth = `${width * 0.8}px`;
  picture.style.maxWidth = `${width * 1.15}px`;
  const lines = add(picture, "g", { class: "edges" });
  const spot = new Map();
  columns.forEach((column, level) => column.forEach((entry, row) => {
    spot.set(entry, [level * (BOX.width + BOX.right), ((row + 0.5) * height) / column.length]);
  }));
  spot.forEach(([x, y], entry) => {
    const sources = sourcesOf(entry);
    for (const source of sources) {
      if (sources.some((other) => behind.get(other).has(source))) continue; // drawn by way of the other
      const [toX, toY] = spot.get(source);
      const start = x + BOX.width;
      const bend = (start + toX) / 2;
      add(lines, "path", { d: `M${start},${y}C${bend},${y},${bend},${toY},${toX},${toY}` });
    }
    const box = add(picture, "a", { href: `#${entry.id}`, class: entry.dataset.kind.replace(" ", "-") });
    add(box, "rect", { x, y: y - BOX.height / 2, width: BOX.width, height: BOX.height, rx: 4 });
    const texts = words(entry);
    texts.forEach((text, line) => add(box, "text", { x: x + 8, y: y - 11 + 14.5 * line, class: `line${line}` }, text));
    add(box, "title", {}).textContent = texts.join("\n");
  });
  return picture;
}

// Show the entry below the picture, with the environment that it was made in.
function choose(entry) {
  const chosen = dialog.querySelector(".chosen");
  const box = dialog.querySelector(`.picture a[href="#${entry.id}"]`);
  dialog.querySelector(".picture a[aria-current]")?.removeAttribute("aria-current");
  box?.setAttribute("aria-current", "true");
  const environment = entry.querySelector('a[href^="#e-"]');
  const parts = [entry, environment && target(environment)];
  chosen.replaceChildren(...parts.filter(Boolean).map((part) => {
    const copy = part.cloneNode(true);
    copy.removeAttribute("id");
    copy.querySelector(".scores")?.remove();
    if (!copy.matches("tr")) return copy;
    const table = document.createElement("table");
    table.className = "ids-list";
    table.append(copy);
    return table;
  }));
}

function open(entry) {
  const [kind, name, note] = words(entry);
  const digits = entry.dataset.kind === "raw data" ? `data/raw/${name}.dvc` : entry.id.slice(2);
  const title = { number: name, score: `${kind}, ${name}, ${note}` }[entry.dataset.kind] ?? `${kind} ${name}`;
  document.getElementById("origin-title").textContent = `What made ${title}`;
  dialog.querySelector(".command").textContent = `gessl trace ${digits}`;
  dialog.querySelector(".picture").replaceChildren(draw(entry));
  choose(entry);
  history.replaceState(null, "", `#${entry.id}`);
  if (!dialog.open) dialog.showModal();
  dialog.querySelector(".picture a").scrollIntoView({ block: "center", behavior: "instant" });
}

// The records of many runs are packed until they are asked for.
const packed = document.getElementById("packed");
let unpacking = null;
const unpacked = () => (unpacking ??= packed ? unpack() : Promise.resolve());

async function unpack() {
  const bytes = Uint8Array.from(atob(packed.textContent), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  packed.outerHTML = await new Response(stream).text();
}

async function follow(link) {
  await unpacked();
  const entry = target(link);
  if (!entry?.dataset.kind) location.hash = link.getAttribute("href");
  else if (dialog.open) choose(entry);
  else open(entry);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (!target(link)?.dataset.kind && !/^#[crs]-/.test(link.getAttribute("href"))) return;
  event.preventDefault();
  follow(link);
});
document.getElementById("records").addEventListener("toggle", unpacked);
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // outside of it
dialog.addEventListener("close", () => history.replaceState(null, "", location.href.split("#")[0]));
document.getElementById("show-ids").addEventListener("change", (event) => {
  document.body.classList.toggle("ids", event.target.checked);
});
async function openAsked() {
  if (/^#[rs]-/.test(location.hash)) await unpacked();
  const asked = document.getElementById(location.hash.slice(1));
  if (asked?.dataset.kind) open(asked);
}
window.addEventListener("hashchange", openAsked);
openAsked();
