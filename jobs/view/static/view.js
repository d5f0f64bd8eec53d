"use strict";
// The page of a job. Everything that a job says is put in as text, never as HTML.

// ---- Where rows and pictures come from

const source = {
  job: () => ask("api/job"),
  rows: (query, first, count, locate) => {
    const asked = new URLSearchParams({ ...query, first, count });
    if (locate !== undefined) asked.set("locate", locate);
    return ask(`api/rows?${asked}`);
  },
  mark: (rows, mark) =>
    ask("api/marks", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ rows, mark }),
    }),
  thumbnail: (item, side) => `thumbnail/${item.row}/${side}?v=${item[side] ?? ""}`,
  full: (item, side) => `full/${item.row}/${side}?v=${item[side] ?? ""}`,
};

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error((await answer.text()) || `${answer.status}`);
  return answer.json();
}

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

function markButtons(holder, give, words) {
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
  for (const button of holder.children) {
    button.setAttribute("aria-pressed", String(button.dataset.mark === mark));
  }
}

// ---- The photographs that are asked for: pages of the order, fetched when they are seen

const PAGE = 100;
const KEPT_PAGES = 60;
const query = { search: "", folder: "", status: "", mark: "", sort: "row", descending: "" };
const list = { total: null, version: "", pages: new Map(), asked: new Set(), turn: 0 };

function itemAt(place) {
  const page = list.pages.get(Math.floor(place / PAGE));
  return page?.rows[place % PAGE];
}

async function need(first, last) {
  const wanted = [];
  for (let page = Math.floor(first / PAGE); page <= Math.floor(last / PAGE); page++) {
    const known = list.pages.get(page);
    if ((!known || known.version !== list.version) && !list.asked.has(page)) wanted.push(page);
  }
  await Promise.all(wanted.map(fetchPage));
}

async function fetchPage(page) {
  const turn = list.turn;
  list.asked.add(page);
  try {
    const told = await source.rows(query, page * PAGE, PAGE);
    if (turn !== list.turn) return;
    list.version = told.version;
    list.total = told.total;
    list.pages.delete(page);
    list.pages.set(page, told);
    if (list.pages.size > KEPT_PAGES) list.pages.delete(list.pages.keys().next().value);
    grid.layout();
  } catch (error) {
    trouble(error.message);
  } finally {
    if (turn === list.turn) list.asked.delete(page);
  }
}

/** Begin anew: other photographs are asked for, or in another order. */
function restart() {
  list.turn++;
  list.pages.clear();
  list.asked.clear();
  list.total = null;
  grid.current = 0;
  grid.toTop();
  fetchPage(0);
  $("direction").textContent = query.descending ? "↓" : "↑";
  $("direction").setAttribute("aria-pressed", String(Boolean(query.descending)));
  $("folder").hidden = !query.folder;
  $("folder").textContent = `in ${query.folder} ✕`;
}

/** What is known may be out of date: what is seen is fetched again, and stays until then. */
function renew(version) {
  if (version === list.version) return;
  list.version = version;
  grid.render();
  if (viewer.isOpen()) viewer.locate();
}

async function giveMark(item, mark) {
  const given = item.mark === mark ? null : mark;
  item.mark = given;
  grid.render();
  if (viewer.item?.row === item.row) {
    viewer.item.mark = given;
    showMark($("viewer-marks"), given);
  }
  try {
    const told = await source.mark([item.row], given);
    renew(told.version);
  } catch (error) {
    trouble(error.message);
    list.version = "";
    grid.render();
  }
}

// ---- The grid: only what is seen is there

// Browsers do not make elements as high as a million photographs need: beyond this, the scroll bar is
// coarser than the page, and what lies between is made up by an offset.
const MOST_HEIGHT = 1_500_000;
const GAP = 10;

const grid = {
  tiles: new Map(),
  current: 0,
  columns: 1,
  offset: 0,
  lastTop: 0,
  shown: "after",
  picturesTimer: 0,

  layout() {
    const both = this.shown === "both";
    const width = $("scroll").clientWidth;
    const wanted = both ? 440 : 240;
    this.columns = Math.max(width < 700 && !both ? 2 : 1, Math.floor((width - GAP) / (wanted + GAP)));
    this.tileWidth = Math.floor((width - GAP) / this.columns) - GAP;
    const narrow = this.tileWidth < 230;
    $("scroll").classList.toggle("narrow", narrow);
    const images = Math.round((this.tileWidth * 3) / (both ? 8 : 4));
    this.tileHeight = images + (narrow ? 88 : 52) + 2;
    this.step = this.tileHeight + GAP;
    this.real = Math.ceil((list.total ?? 0) / this.columns) * this.step + GAP;
    this.height = Math.min(this.real, MOST_HEIGHT);
    this.pageHeight = this.height / 100;
    this.scrollPages = Math.max(1, Math.floor(this.real / this.pageHeight));
    this.jump = this.scrollPages > 1 ? (this.real - this.height) / (this.scrollPages - 1) : 0;
    if (this.real === this.height) this.offset = 0;
    $("grid").style.height = `${this.height}px`;
    $("empty").hidden = list.total !== 0;
    $("empty").textContent = job.done ? "No photograph is like that." : "No photograph has a result yet.";
    if (list.total !== null) $("count").textContent = whole(list.total);
    this.render();
  },

  toTop() {
    this.offset = this.lastTop = 0;
    $("scroll").scrollTop = 0;
    this.layout();
  },

  /** Scroll to a place of the whole height. */
  goTo(real) {
    const view = $("scroll").clientHeight;
    const top = Math.max(0, Math.min(real, this.real - view));
    const page = Math.min(this.scrollPages - 1, Math.floor(top / this.pageHeight));
    this.offset = Math.round(page * this.jump);
    const wanted = top - this.offset;
    if (Math.abs(wanted - $("scroll").scrollTop) >= 1) $("scroll").scrollTop = wanted;
    this.lastTop = $("scroll").scrollTop;
  },

  onScroll() {
    const top = $("scroll").scrollTop;
    const view = $("scroll").clientHeight;
    const moved = Math.abs(top - this.lastTop);
    if (this.real > this.height && moved > 0) {
      if (moved < view) {
        this.goTo(top + this.offset);
      } else {
        const share = (this.real - view) / (this.height - view);
        const page = Math.min(this.scrollPages - 1, Math.floor((top * share) / this.pageHeight));
        this.offset = Math.round(page * this.jump);
      }
    }
    this.lastTop = $("scroll").scrollTop;
    this.render();
  },

  range() {
    const top = $("scroll").scrollTop + this.offset;
    const first = Math.max(0, Math.floor(top / this.step) - 1) * this.columns;
    const rows = Math.ceil($("scroll").clientHeight / this.step) + 3;
    return [first, Math.min((list.total ?? 0) - 1, first + rows * this.columns - 1)];
  },

  render() {
    if (!this.step) return;
    const [first, last] = this.range();
    for (const [place, tile] of this.tiles) {
      if (place < first || place > last) {
        for (const image of tile.images) image.removeAttribute("src"); // what is on its way is not needed
        tile.remove();
        this.tiles.delete(place);
      }
    }
    for (let place = first; place <= last; place++) {
      let tile = this.tiles.get(place);
      if (!tile) {
        tile = makeTile(place);
        this.tiles.set(place, tile);
        $("grid").append(tile);
      }
      const line = Math.floor(place / this.columns);
      tile.style.width = `${this.tileWidth}px`;
      tile.style.height = `${this.tileHeight}px`;
      tile.style.transform =
        `translate(${GAP + (place % this.columns) * (this.tileWidth + GAP)}px, ${GAP + line * this.step - this.offset}px)`;
      fillTile(tile, itemAt(place), place === this.current);
    }
    clearTimeout(this.picturesTimer);
    this.picturesTimer = setTimeout(() => this.settle(), 60);
  },

  /** Load what is seen, once scrolling pauses. */
  settle() {
    const [first, last] = this.range();
    need(first, Math.max(first, last)); // of an empty one, too: it may have grown
    for (const tile of this.tiles.values()) {
      for (const image of tile.images) {
        if (image.dataset.wanted && image.getAttribute("src") !== image.dataset.wanted) image.src = image.dataset.wanted;
      }
    }
  },

  walk(by) {
    if (!list.total) return;
    this.current = Math.max(0, Math.min(list.total - 1, this.current + by));
    const top = GAP + Math.floor(this.current / this.columns) * this.step;
    const seen = $("scroll").scrollTop + this.offset;
    const view = $("scroll").clientHeight;
    if (top - GAP < seen) this.goTo(top - GAP);
    else if (top + this.step > seen + view) this.goTo(top + this.step - view);
    this.render();
    this.tiles.get(this.current)?.querySelector(".open").focus({ preventScroll: true });
  },
};

function makeTile(place) {
  const tile = element("div", "tile");
  tile.setAttribute("role", "listitem");
  tile.images = [];
  const open = element("button", "open");
  open.type = "button";
  open.addEventListener("click", () => {
    grid.current = place;
    viewer.open(place);
  });
  open.addEventListener("focus", () => {
    if (grid.current === place) return;
    grid.current = place;
    grid.render();
  });
  const caption = element("div", "caption");
  const names = element("div", "names");
  tile.folder = element("button", "in");
  tile.folder.type = "button";
  tile.folder.tabIndex = -1;
  tile.folder.addEventListener("click", () => {
    query.folder = folderOf(itemAt(place)?.key ?? "");
    restart();
  });
  tile.name = element("b");
  names.append(tile.folder, tile.name);
  tile.marks = element("span", "marks");
  markButtons(tile.marks, (mark) => itemAt(place) && giveMark(itemAt(place), mark));
  caption.append(names, tile.marks);
  tile.append(open, caption);
  return tile;
}

function fillTile(tile, item, isCurrent) {
  tile.classList.toggle("current", isCurrent && document.activeElement?.closest("#grid") !== null);
  const open = tile.querySelector(".open");
  open.tabIndex = isCurrent ? 0 : -1;
  const signature = item ? `${item.row} ${item.status} ${item.before} ${item.after} ${item.mark} ${query.sort} ${grid.shown}` : "";
  if (tile.signature === signature) return;
  tile.signature = signature;
  tile.images = [];
  open.replaceChildren();
  open.classList.remove("none");
  tile.name.textContent = tile.folder.textContent = "";
  delete tile.dataset.mark;
  if (!item) return;
  if (item.mark) tile.dataset.mark = item.mark;
  showMark(tile.marks, item.mark);
  const folder = folderOf(item.key);
  tile.folder.textContent = folder;
  tile.folder.title = `Only ${folder}`;
  tile.name.textContent = nameOf(item.key);
  tile.title = item.key;
  const value = item.figures[query.sort];
  if (value !== undefined) tile.name.append(" ", element("span", "figure", figureText(query.sort, value)));
  open.setAttribute("aria-label", item.status === "ok" ? `open ${item.key}` : `open ${item.key}, ${item.status}`);
  const sides = item.status !== "ok" ? ["before"] : grid.shown === "both" ? ["before", "after"] : [grid.shown];
  for (const side of sides) {
    const image = element("img");
    image.alt = "";
    image.draggable = false;
    image.decoding = "async";
    image.dataset.wanted = source.thumbnail(item, side);
    image.addEventListener("load", () => image.classList.add("there"));
    image.addEventListener("error", () => image.getAttribute("src") && open.classList.add("none"));
    tile.images.push(image);
    open.append(image);
  }
  if (item.status !== "ok") open.append(element("span", "reason", `${item.status}: ${item.reason}`));
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
    if (!item) return;
    for (const side of item.status === "ok" ? ["after", "before"] : ["before"]) new Image().src = source.full(item, side);
  },

  show(item) {
    this.item = item;
    const good = item.status === "ok";
    $("viewer-folder").textContent = folderOf(item.key) ? `${folderOf(item.key)}/` : "";
    $("viewer-name").textContent = nameOf(item.key);
    $("viewer-name").title = item.key;
    this.showPlace();
    $("viewer-reason").hidden = good;
    $("viewer-reason").textContent = good ? "" : `${item.status}: ${item.reason}`;
    $("frame").classList.toggle("alone", !good);
    for (const side of ["before", "after"]) {
      const image = $(side);
      if (side === "after" && !good) image.removeAttribute("src");
      else image.src = source.full(item, side);
      image.alt = `${side === "before" ? "photograph" : "picture"} ${item.key}`;
    }
    this.cut(50);
    showMark($("viewer-marks"), item.mark);
    $("figures").replaceChildren(
      ...Object.entries(item.figures).flatMap(([name, value]) => [
        element("dt", "", label(name)),
        element("dd", "", figureText(name, value)),
      ]),
    );
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
      const told = await source.rows(query, 0, 0, item.row);
      if (turn !== this.turn || item !== this.item) return;
      list.total = told.total;
      this.gone = told.located === null;
      if (!this.gone) this.place = told.located;
      if (list.total) this.showPlace();
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

// ---- How far the job is

let job = { figures: [], done: 0 };
let said = "";

function label(name) {
  return LABELS[name] ?? job.figures.find((figure) => figure.name === name)?.label ?? name;
}

function trouble(text) {
  said = text;
  showNotes();
}

function showNotes() {
  const problems = [said, job.trouble].filter(Boolean);
  const notes = [...problems, job.adapting && `learning: ${job.adapting}`, ...(job.notes ?? [])].filter(Boolean);
  $("notes").hidden = !notes.length;
  $("notes").classList.toggle("trouble", problems.length > 0);
  $("notes-summary").textContent = notes.length > 1 ? `${notes[0]} (and ${notes.length - 1} more)` : notes[0] ?? "";
  $("notes-list").replaceChildren(...notes.slice(1).map((note) => element("li", "", note)));
}

function showJob() {
  const name = job.name.replace(/\/+$/, "");
  $("name").textContent = name.slice(name.lastIndexOf("/") + 1) || name;
  $("name").title = `${job.name}, ${job.kind}`;
  document.title = `${$("name").textContent}: ${whole(job.done)} of ${whole(job.total)}`;
  $("state").textContent = job.state;
  $("state").title = job.driver;
  $("state").className = `state ${job.state === "complete" ? "complete" : job.state.includes("failures") ? "failures" : ""}`;
  const bad = job.done - job.counts.ok;
  const rate = job.rate >= 1 ? `${job.rate.toFixed(1)} per second` : `${(job.rate * 3600).toFixed(0)} per hour`;
  const parts = [
    `${whole(job.done)} of ${whole(job.total)}`,
    bad ? `${whole(bad)} without a picture` : "",
    job.rate ? rate : "",
    job.left_s !== null ? `${duration(job.left_s)} left` : "",
    job.workers ? `${job.workers} worker${job.workers > 1 ? "s" : ""}` : "",
    job.read < job.listed ? `reading results: ${Math.floor((100 * job.read) / job.listed)} %` : "",
  ];
  $("progress-text").textContent = parts.filter(Boolean).join(" · ");
  $("bar-ok").style.width = `${(100 * job.counts.ok) / job.total}%`;
  $("bar-bad").style.width = `${(100 * bad) / job.total}%`;
  $("bar").setAttribute("aria-valuenow", String(Math.round((100 * job.done) / job.total)));
  options("status", [["", "Any status"], ...job.statuses.map((each) => [each, `${each} (${whole(job.counts[each])})`])]);
  options("mark", [
    ["", "Any mark"],
    ...MARKS.map(({ mark, sign }) => [mark, `${sign} ${mark} (${whole(job.marks[mark])})`]),
    ["none", "not marked"],
  ]);
  options("sort", [["row", "In order"], ["key", "By key"], ...job.figures.map(({ name }) => [name, `By ${label(name)}`])]);
  showNotes();
}

function options(id, wanted) {
  const select = $(id);
  const signature = JSON.stringify(wanted);
  if (select.dataset.signature === signature) return;
  select.dataset.signature = signature;
  const { value } = select;
  select.replaceChildren(
    ...wanted.map(([name, text]) => {
      const option = element("option", "", text);
      option.value = name;
      return option;
    }),
  );
  select.value = value || query[id];
}

async function poll() {
  try {
    job = await source.job();
    said = "";
    showJob();
    renew(job.version);
  } catch (error) {
    trouble(error instanceof TypeError ? "The server has ended: start nst view again." : error.message);
  }
  const reading = job.read < job.listed || !job.listed;
  setTimeout(poll, document.hidden ? 10_000 : reading ? 700 : 2_000);
}

// ---- What a person does

function listen() {
  let timer = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      query.search = $("search").value;
      restart();
    }, 180);
  });
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const name of ["status", "mark", "sort"]) {
    $(name).addEventListener("change", () => {
      query[name] = $(name).value;
      restart();
    });
  }
  $("direction").addEventListener("click", () => {
    query.descending = query.descending ? "" : "1";
    restart();
  });
  $("folder").addEventListener("click", () => {
    query.folder = "";
    restart();
  });
  $("shown").addEventListener("change", () => {
    grid.shown = $("shown").value;
    grid.layout();
    grid.walk(0);
  });
  $("scroll").addEventListener("scroll", () => grid.onScroll(), { passive: true });
  new ResizeObserver(() => grid.layout()).observe($("scroll"));
  new ResizeObserver(() => viewer.fit()).observe($("stage"));
  $("close").addEventListener("click", () => viewer.close());
  $("previous").addEventListener("click", () => viewer.walk(-1));
  $("next").addEventListener("click", () => viewer.walk(1));
  $("zoom").addEventListener("click", () => viewer.zoom());
  $("viewer").addEventListener("close", () => viewer.closed()); // by a phone's button for going back
  markButtons($("viewer-marks"), (mark) => viewer.item && giveMark(viewer.item, mark), true);
  listenToSlider();
  document.addEventListener("keydown", onKey);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, summary")) return;
  const isOpen = viewer.isOpen();
  const item = isOpen ? viewer.item : itemAt(grid.current);
  const mark = MARKS.find(({ key }) => key === event.key.toLowerCase())?.mark;
  const steps = isOpen
    ? { ArrowLeft: () => viewer.walk(-1), ArrowRight: () => viewer.walk(1), ArrowUp: () => viewer.cut(viewer.percent + 5),
        ArrowDown: () => viewer.cut(viewer.percent - 5), z: () => viewer.zoom(), Escape: () => viewer.close() }
    : { ArrowLeft: () => grid.walk(-1), ArrowRight: () => grid.walk(1), ArrowUp: () => grid.walk(-grid.columns),
        ArrowDown: () => grid.walk(grid.columns), Home: () => grid.walk(-Infinity), End: () => grid.walk(Infinity),
        "/": () => $("search").focus() };
  const step = steps[event.key];
  if (mark && item) giveMark(item, mark);
  else if (step) step();
  else return;
  event.preventDefault();
}

function begin() {
  if (location.search) history.replaceState(null, "", location.pathname); // the token is in a cookie now
  listen();
  restart();
  poll();
}

begin();
