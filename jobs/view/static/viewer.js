"use strict";
// One photograph and its picture, large. Everything that a job says is put in as text, never as HTML.

// ---- Small things

const $ = (id) => document.getElementById(id);
const MARKS = [
  { mark: "keep", sign: "✓", key: "k" },
  { mark: "reject", sign: "✕", key: "r" },
  { mark: "again", sign: "↻", key: "a" },
];
const LABELS = {
  row: "in order", key: "key", width: "width", height: "height", load_s: "load time", compute_s: "compute time",
  save_s: "save time", attempts: "attempts", retries: "store retries", finished_at: "finished",
};
const whole = (number) => number.toLocaleString("en");

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function figureText(name, value) {
  if (name === "finished_at") return new Date(value * 1000).toLocaleString();
  if (name.endsWith("_s")) return `${value < 10 ? value.toFixed(2) : value.toFixed(1)} s`;
  return Number.isInteger(value) ? whole(value) : String(Number(value.toPrecision(4)));
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} days`;
}

function folderOf(key) {
  return key.slice(0, Math.max(0, key.lastIndexOf("/")));
}

function nameOf(key) {
  return key.slice(key.lastIndexOf("/") + 1);
}

/** Which of a row's two pictures there are. */
function sidesOf(item) {
  return item.status === "ok" ? source.sides ?? ["before", "after"] : ["before"];
}

/** Buttons to give a mark by, or room for the sign of one where nobody can give any. */
function markButtons(holder, give, words) {
  if (!source.mark) return;
  for (const { mark, sign, key } of MARKS) {
    const button = element("button", "", words ? `${sign} ${mark}` : sign);
    button.type = "button";
    button.tabIndex = words ? 0 : -1;
    button.dataset.mark = mark;
    button.title = `${mark} (${key})`;
    button.setAttribute("aria-label", mark);
    button.addEventListener("click", () => give(mark));
    holder.append(button);
  }
}

function showMark(holder, mark) {
  if (!source.mark) holder.textContent = MARKS.find((each) => each.mark === mark)?.sign ?? "";
  for (const button of holder.children) {
    button.setAttribute("aria-pressed", String(button.dataset.mark === mark));
  }
}

// ---- One photograph: before and after

const viewer = {
  item: null,
  place: 0,
  gone: false,
  turn: 0,

  isOpen: () => $("viewer").open,

  async open(place) {
    if (!list.total) return;
    this.place = Math.max(0, Math.min(list.total - 1, place));
    this.gone = false;
    const turn = ++this.turn;
    if (!itemAt(this.place)) await need(this.place, this.place);
    const item = itemAt(this.place);
    if (!item || turn !== this.turn) return;
    if (!this.isOpen()) $("viewer").showModal();
    this.show(item);
    for (const near of [this.place + 1, this.place - 1]) this.prepare(itemAt(near));
    if (this.place % PAGE > PAGE - 5 && this.place + 5 < list.total) need(this.place + 5, this.place + 5);
  },

  prepare(item) {
    const urls = item ? sidesOf(item).map((side) => source.full(item, side)) : [];
    for (const url of urls.filter(Boolean)) new Image().src = url;
  },

  /** At full size, or small where there is none of that. */
  load(image, item, side) {
    const full = source.full(item, side);
    const small = () => source.thumbnail(item, side);
    image.onerror = () => {
      image.onerror = null;
      const instead = item === this.item ? small() : null;
      if (instead) image.src = instead;
    };
    const url = full ?? small();
    if (url) image.src = url;
    else image.removeAttribute("src");
  },

  show(item) {
    this.item = item;
    const good = item.status === "ok";
    const sides = sidesOf(item);
    const reason = good ? item.problem : `${item.status}: ${item.reason}`;
    $("viewer-folder").textContent = folderOf(item.key) ? `${folderOf(item.key)}/` : "";
    $("viewer-name").textContent = nameOf(item.key);
    $("viewer-name").title = item.key;
    this.showPlace();
    $("viewer-reason").hidden = !reason;
    $("viewer-reason").textContent = reason ?? "";
    $("frame").classList.toggle("alone", sides.length < 2);
    for (const side of ["before", "after"]) {
      const image = $(side);
      if (sides.includes(side)) this.load(image, item, side);
      else image.removeAttribute("src");
      image.alt = `${side === "before" ? "photograph" : "picture"} ${item.key}`;
    }
    this.cut(50);
    showMark($("viewer-marks"), item.mark);
    $("figures").replaceChildren(
      ...(item.again ? [element("dt", "", "done again"), element("dd", "", item.again)] : []),
      ...Object.entries(item.figures).flatMap(([name, value]) => [
        element("dt", "", label(name)),
        element("dd", "", figureText(name, value)),
      ]),
    );
    $("curve").replaceChildren(...(source.curve?.(item) ?? []));
    this.fit();
  },

  showPlace() {
    $("viewer-place").textContent = `${whole(this.place + 1)} of ${whole(list.total)}`;
  },

  fit() {
    if (!this.item) return;
    const stage = $("stage");
    const { width = 0, height = 0 } = this.item.figures;
    const zoomed = stage.classList.contains("zoomed") && width > 0;
    let size = [stage.clientWidth, stage.clientHeight];
    if (width > 0) {
      const most = Math.min(stage.clientWidth / width, stage.clientHeight / height, 2);
      const scale = zoomed ? 1 / devicePixelRatio : most;
      size = [width * scale, height * scale];
    }
    $("frame").style.width = `${Math.round(size[0])}px`;
    $("frame").style.height = `${Math.round(size[1])}px`;
  },

  cut(percent) {
    this.percent = Math.max(0, Math.min(100, percent));
    $("frame").style.setProperty("--cut", `${this.percent}%`);
    $("handle").setAttribute("aria-valuenow", String(Math.round(this.percent)));
  },

  walk(by) {
    this.open(this.gone && by > 0 ? this.place : this.place + by);
  },

  close() {
    if (this.isOpen()) $("viewer").close();
    this.closed();
  },

  /** At once, not when the browser says so: the next key may come before that, and is for the grid. */
  closed() {
    if (!this.item) return;
    this.turn++;
    this.item = null;
    grid.current = this.place;
    grid.walk(0);
  },

  /** Where the photograph is by now, after others came or went. */
  async locate() {
    const { item, turn } = this;
    if (!item) return;
    try {
      const told = await source.rows(query, 0, 0, { locate: item.key });
      if (turn !== this.turn || item !== this.item) return;
      list.total = told.total;
      this.gone = told.located === null;
      if (!this.gone) this.place = told.located;
      if (list.total) this.showPlace();
      if (this.gone) return;
      await need(this.place, this.place);
      const now = itemAt(this.place);
      const other = now?.key === item.key && (now.again !== item.again || now.after !== item.after);
      if (other && turn === this.turn && item === this.item) this.show(now);
    } catch (error) {
      trouble(error.message);
    }
  },

  zoom() {
    const zoomed = $("stage").classList.toggle("zoomed");
    $("zoom").setAttribute("aria-pressed", String(zoomed));
    this.fit();
  },
};

/** What keys do while it is open. */
const VIEWER_KEYS = {
  ArrowLeft: () => viewer.walk(-1),
  ArrowRight: () => viewer.walk(1),
  ArrowUp: () => viewer.cut(viewer.percent + 5),
  ArrowDown: () => viewer.cut(viewer.percent - 5),
  z: () => viewer.zoom(),
  Escape: () => viewer.close(),
};

function listenToViewer() {
  new ResizeObserver(() => viewer.fit()).observe($("stage"));
  $("close").addEventListener("click", () => viewer.close());
  $("previous").addEventListener("click", () => viewer.walk(-1));
  $("next").addEventListener("click", () => viewer.walk(1));
  $("zoom").addEventListener("click", () => viewer.zoom());
  // By a phone's button for going back. It is told late: another photograph may have been opened since.
  $("viewer").addEventListener("close", () => viewer.isOpen() || viewer.closed());
  listenToSlider();
}

function slide(event) {
  const box = $("frame").getBoundingClientRect();
  viewer.cut((100 * (event.clientX - box.left)) / box.width);
}

function listenToSlider() {
  const frame = $("frame");
  frame.addEventListener("pointerdown", (event) => {
    const zoomed = $("stage").classList.contains("zoomed");
    if (event.button !== 0 || (zoomed && event.target !== $("handle"))) return;
    frame.setPointerCapture(event.pointerId);
    slide(event);
  });
  frame.addEventListener("pointermove", (event) => {
    if (frame.hasPointerCapture(event.pointerId)) slide(event);
  });
}
