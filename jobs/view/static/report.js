// Where a report has its rows and pictures from: the elements of JSON in it. Thumbnails are in chunks, each of which
// is read when one of its photographs is seen, so that the first ones are shown at once.

const told = JSON.parse($("data").textContent);
for (const [place, row] of told.rows.entries()) row.place = place;
const chunks = new Map();

function small(item) {
  const number = Math.floor(item.place / told.chunk);
  if (!chunks.has(number)) {
    const holder = $(`pictures-${number}`);
    if (!holder?.nextSibling && document.readyState === "loading") return [null, null]; // it is not there yet, or not all of it
    chunks.set(number, JSON.parse(holder.textContent));
  }
  return chunks.get(number)[item.place % told.chunk];
}

const source = {
  job: async () => told.job,
  tileWidth: () => Math.max(190, Math.min(340, told.job.side_px * 0.8)),
  rows: async (query, first, count, { locate } = {}) => {
    const order = orderOf(query);
    const located = order.findIndex((row) => row.key === locate);
    return {
      version: "",
      total: order.length,
      first,
      rows: order.slice(first, first + count),
      headings: headingsOf(order, query),
      located: located < 0 ? null : located,
    };
  },
  thumbnail: (item, side) => {
    const data = small(item)[side === "before" ? 0 : 1];
    return data && `data:${told.type};base64,${data}`;
  },
  lacks: (item, side) => !item.small.includes(side),
  full: (item, side) => item.full[side],
  curve: (item) => {
    if (!item.curve) return [];
    const [points, what] = item.curve;
    return points ? [curveOf(points), element("p", "dim", what)] : [element("p", "dim", what)];
  },
};

function curveOf(points) {
  const [svg, line] = ["svg", "polyline"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  svg.setAttribute("class", "curve");
  svg.setAttribute("viewBox", "0 0 300 50");
  svg.setAttribute("preserveAspectRatio", "none");
  line.setAttribute("points", points);
  svg.append(line);
  return svg;
}

// ---- What the server would do

let last = { asked: "", order: [] };

/** The rows that are wanted, in the order that is asked for; what has no such figure comes last. */
function orderOf(query) {
  const asked = JSON.stringify(query);
  if (last.asked !== asked) last = { asked, order: sorted(told.rows.filter((row) => isWanted(row, query)), query) };
  return last.order;
}

function isWanted(row, { search, folder, status, mark }) {
  return (
    (!search || row.key.toLowerCase().includes(search.toLowerCase())) &&
    (!folder || row.key.startsWith(`${folder}/`)) &&
    (!status || row.status === status) &&
    (!mark || (row.mark ?? "none") === mark)
  );
}

function sorted(rows, { sort, descending }) {
  const way = descending ? -1 : 1;
  if (sort === "row") return descending ? rows.reverse() : rows;
  if (sort === "key") return rows.sort((a, b) => way * (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
  const value = (row) => row.figures[sort] ?? way * Infinity;
  return rows.sort((a, b) => (value(a) === value(b) ? 0 : way * (value(a) - value(b))));
}

/** As the server's: none where they would not help. */
function headingsOf(order, { sort }) {
  if (sort !== "row" && sort !== "key") return [];
  const found = [];
  for (const [place, row] of order.entries()) {
    const folder = folderOf(row.key);
    if (!place || folder !== found.at(-1)[1]) found.push([place, folder]);
  }
  const names = new Set(found.map(([, folder]) => folder));
  const most = Math.max(order.length / 4, Math.min(20, 2 * names.size));
  return found.length > most || (names.size === 1 && names.has("")) ? [] : found;
}

// ---- What only a report has

function addDetails() {
  const button = element("button", "about", "Details");
  button.type = "button";
  button.addEventListener("click", () => $("details").showModal());
  $("details-close").addEventListener("click", () => $("details").close());
  document.querySelector(".headline").append(button);
  const pictures = [...document.querySelectorAll("#details .styles img")].slice(0, 12);
  if (!pictures.length) return;
  const strip = element("div");
  strip.id = "styles";
  for (const picture of pictures) {
    const style = element("button");
    style.type = "button";
    style.title = picture.closest("figure").title;
    const image = element("img");
    image.src = picture.src;
    image.alt = ""; // its name is beside it
    style.append(image, element("span", "", picture.closest("figure").textContent));
    style.addEventListener("click", () => $("details").showModal());
    strip.append(style);
  }
  document.querySelector("header").append(strip);
}

const MOST_PRINTED = 400;

/** Printers get a plain page of what is asked for, since the grid has only what is seen. */
function addPrinting() {
  const sheet = element("div");
  sheet.id = "print";
  document.body.append(sheet);
  addEventListener("beforeprint", () => {
    const order = orderOf(query);
    const shown = order.slice(0, MOST_PRINTED);
    const count = shown.length < order.length ? `, the first ${whole(shown.length)} of ${whole(order.length)}` : "";
    sheet.className = shown.length > 30 ? "many" : "";
    sheet.replaceChildren(
      element("h1", "", $("name").textContent),
      element("p", "", `${$("state").textContent} · ${$("progress-text").textContent}${count}`),
      ...(job.notes ?? []).map((note) => element("p", "note", note)),
      ...shown.map(printed),
    );
  });
  addEventListener("afterprint", () => sheet.replaceChildren());
}

function printed(item) {
  const figure = element("figure", grid.shown === "both" ? "both" : "");
  const pair = element("div", "pair");
  for (const side of sidesOf(item)) {
    if (item.status === "ok" && grid.shown !== "both" && grid.shown !== side) continue;
    const image = element("img");
    const url = source.thumbnail(item, side);
    if (url) image.src = url;
    if (url) pair.append(image);
  }
  const caption = element("figcaption", "", item.key);
  if (item.mark) caption.append(` ${MARKS.find(({ mark }) => mark === item.mark).sign}`);
  const value = item.figures[query.sort];
  if (value !== undefined) caption.append(` ${figureText(query.sort, value)}`);
  if (item.status !== "ok") caption.append(element("span", "why", `${item.status}: ${item.reason}`));
  figure.append(pair, caption);
  return figure;
}

addDetails();
addPrinting();
if (!Object.values(told.job.marks).some(Boolean)) $("mark").hidden = true;
document.addEventListener("DOMContentLoaded", () => grid.settle()); // for chunks that have come since
