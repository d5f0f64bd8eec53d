"use strict";
// The page of a job: its grid, and what is asked for. Everything that a job says is put in as text, never as HTML.

// ---- The photographs that are asked for: pages of the order, fetched when they are seen

const PAGE = 100;
const KEPT_PAGES = 60;
const query = { search: "", folder: "", status: "", mark: "", sort: "row", descending: "" };
const list = { total: null, version: "", pages: new Map(), asked: new Set(), turn: 0, headings: [], headed: null };

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
    const told = await source.rows(query, page * PAGE, PAGE, { headings: list.headed !== list.version });
    if (turn !== list.turn) return;
    list.version = told.version;
    list.total = told.total;
    if (told.headings) {
      list.headings = told.headings;
      list.headed = told.version;
    } else if (list.headed !== told.version) {
      told.version = null; // it is asked for again, with the headings
    }
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
  list.total = list.headed = null;
  list.headings = [];
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
const HEADING = 40;

/** The last of `items` of which `test` is true, if it is of all before that, too; the first one if of none. */
function lastOf(items, test) {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (test(items[middle])) low = middle + 1;
    else high = middle;
  }
  return items[Math.max(0, low - 1)];
}

const grid = {
  tiles: new Map(),
  /** Of folders that are seen. */
  headings: new Map(),
  groups: [],
  current: 0,
  columns: 1,
  offset: 0,
  lastTop: 0,
  shown: "after",
  picturesTimer: 0,

  layout() {
    const both = this.shown === "both";
    const width = $("scroll").clientWidth;
    const wanted = (source.tileWidth?.() ?? 240) * (both ? 1.8 : 1);
    this.columns = Math.max(width < 700 && !both ? 2 : 1, Math.floor((width - GAP) / (wanted + GAP)));
    this.tileWidth = Math.floor((width - GAP) / this.columns) - GAP;
    const narrow = this.tileWidth < 230;
    $("scroll").classList.toggle("narrow", narrow);
    $("scroll").classList.toggle("grouped", list.headings.length > 0);
    const images = Math.round((this.tileWidth * 3) / (both ? 8 : 4));
    const name = list.headings.length ? 18 : 36; // with the folder's, where no heading says it
    const caption = source.mark ? (narrow ? name + 52 : 52) : name + 18;
    $("scroll").style.setProperty("--caption", `${caption}px`);
    this.tileHeight = images + caption + 2;
    this.step = this.tileHeight + GAP;
    this.real = this.arrange();
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

  /** Where every folder's photographs are; without headings, all are one folder's. Gives the whole height. */
  arrange() {
    const total = list.total ?? 0;
    const starts = list.headings.filter(([first]) => first < total);
    if (!starts.length) starts.push([0, null]);
    let top = GAP;
    this.groups = starts.map(([first, folder], index) => {
      const count = (starts[index + 1]?.[0] ?? total) - first;
      const below = top + (folder === null ? 0 : HEADING);
      const group = { first, folder, count, top, below, lines: Math.ceil(count / this.columns) };
      top = below + group.lines * this.step;
      return group;
    });
    return top;
  },

  groupOf(place) {
    return lastOf(this.groups, (group) => group.first <= place);
  },

  /** Where a photograph is: its line's place in the whole height, and its column. */
  spot(place) {
    const { first, below } = this.groupOf(place);
    const line = Math.floor((place - first) / this.columns);
    return { top: below + line * this.step, column: (place - first) % this.columns };
  },

  /** The place after the last of the line at, or above, a place of the whole height. */
  endOfLine(top) {
    const { first, below, lines, count } = lastOf(this.groups, (group) => group.top <= top);
    const line = Math.max(0, Math.min(lines - 1, Math.floor((top - below) / this.step)));
    return first + Math.min(count, (line + 1) * this.columns);
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
    const first = Math.max(0, this.endOfLine(Math.max(0, top - this.step)) - this.columns);
    return [first, this.endOfLine(top + $("scroll").clientHeight + this.step) - 1];
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
      const { top, column } = this.spot(place);
      tile.style.width = `${this.tileWidth}px`;
      tile.style.height = `${this.tileHeight}px`;
      tile.style.transform = `translate(${GAP + column * (this.tileWidth + GAP)}px, ${top - this.offset}px)`;
      fillTile(tile, itemAt(place), place === this.current);
    }
    this.head(first, last);
    clearTimeout(this.picturesTimer);
    this.picturesTimer = setTimeout(() => this.settle(), 60);
  },

  /** Headings of the folders of photographs from `first` to `last`. */
  head(first, last) {
    const from = this.groups.indexOf(this.groupOf(first));
    const seen = new Map();
    for (let index = from; index < this.groups.length && this.groups[index].first <= last; index++) {
      const group = this.groups[index];
      if (group.folder === null) continue;
      const name = `${group.first}/${group.count}/${group.folder}`;
      seen.set(name, this.headings.get(name) ?? makeHeading(group));
      seen.get(name).style.transform = `translate(${GAP}px, ${group.top - this.offset}px)`;
    }
    for (const [name, heading] of this.headings) if (!seen.has(name)) heading.remove();
    for (const heading of seen.values()) if (!heading.isConnected) $("grid").append(heading);
    this.headings = seen;
  },

  /** Load what is seen, once scrolling pauses. */
  settle() {
    const [first, last] = this.range();
    need(first, Math.max(first, last)); // of an empty one, too: it may have grown
    for (const tile of this.tiles.values()) {
      for (const image of tile.images) {
        const url = source.thumbnail(image.item, image.side);
        if (url && image.getAttribute("src") !== url) image.src = url;
      }
    }
  },

  walk(by) {
    if (!list.total) return;
    this.current = Math.max(0, Math.min(list.total - 1, this.current + by));
    const { top } = this.spot(this.current);
    const group = this.groupOf(this.current);
    const above = top === group.below ? group.top : top; // the first ones with their heading
    const seen = $("scroll").scrollTop + this.offset;
    const view = $("scroll").clientHeight;
    if (above - GAP < seen) this.goTo(above - GAP);
    else if (top + this.step > seen + view) this.goTo(top + this.step - view);
    this.render();
    this.tiles.get(this.current)?.querySelector(".open").focus({ preventScroll: true });
  },

  /** To the line above, -1, or below, 1, which may be another folder's. */
  walkLine(by) {
    if (!list.total) return;
    const [start, end, column] = this.line(this.current);
    const near = by < 0 ? start - 1 : end;
    if (near < 0 || near >= list.total) return;
    const [first, last] = this.line(near);
    this.walk(Math.min(first + column, last - 1) - this.current);
  },

  /** Where the line of a photograph begins and ends, and its column. */
  line(place) {
    const { first, count } = this.groupOf(place);
    const column = (place - first) % this.columns;
    return [place - column, Math.min(place - column + this.columns, first + count), column];
  },
};

function makeHeading(group) {
  const heading = element("div", "heading");
  heading.setAttribute("role", "heading");
  heading.setAttribute("aria-level", "2");
  const parts = group.folder.split("/");
  for (const [index, part] of parts.entries()) {
    const button = element("button", "in", part || "(no folder)");
    const folder = parts.slice(0, index + 1).join("/");
    button.type = "button";
    button.disabled = !folder;
    button.title = folder && `Only ${folder}`;
    button.addEventListener("click", () => {
      query.folder = folder;
      restart();
    });
    if (index) heading.append(element("span", "dim", "/"));
    heading.append(button);
  }
  heading.append(element("span", "dim count", whole(group.count)));
  return heading;
}

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
  const signature = item ? `${item.row} ${item.status} ${item.before} ${item.after} ${item.mark} ${item.again} ${query.sort} ${grid.shown}` : "";
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
  const more = [item.status === "ok" ? "" : item.status, madeAgain(item)].filter(Boolean).map((text) => `, ${text}`);
  open.setAttribute("aria-label", `open ${item.key}${more.join("")}`);
  for (const side of sidesOf(item)) {
    if (item.status === "ok" && grid.shown !== "both" && grid.shown !== side) continue;
    const image = element("img");
    Object.assign(image, { item, side });
    image.alt = "";
    image.draggable = false;
    image.decoding = "async";
    if (source.lacks?.(item, side)) open.classList.add("none");
    image.addEventListener("load", () => image.classList.add("there"));
    image.addEventListener("error", () => image.getAttribute("src") && open.classList.add("none"));
    tile.images.push(image);
    open.append(image);
  }
  if (item.status !== "ok") open.append(element("span", "reason", `${item.status}: ${item.reason}`));
  else if (item.again) open.append(element("span", "made", `↻ ${item.again}`));
}

function madeAgain(item) {
  return !item.again ? "" : `done again: ${item.again}`;
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
    job.made && job.done < job.total ? `on ${job.made}` : "",
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
  showRedo();
}

/** The command for what is marked to be done again: it is for a terminal, since it takes hours and options. */
function showRedo() {
  const count = job.marks.again;
  $("again").hidden = !count || !job.redo; // a report has none
  $("again-text").textContent = `${whole(count)} marked again. To do ${count === 1 ? "it" : "them"} with other options:`;
  if ($("again-command").textContent !== job.redo) $("again-command").textContent = job.redo; // it may be selected
}

async function copyRedo() {
  const code = $("again-command");
  getSelection().selectAllChildren(code);
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    if (!document.execCommand("copy")) said = "Selected";
  }
  $("again-copy").textContent = said;
  setTimeout(() => ($("again-copy").textContent = "Copy"), 2_000);
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
  if (!source.grows) return;
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
  listenToViewer();
  $("again-copy").addEventListener("click", copyRedo);
  markButtons($("viewer-marks"), (mark) => viewer.item && giveMark(viewer.item, mark), true);
  document.addEventListener("keydown", onKey);
}

const GRID_KEYS = {
  ArrowLeft: () => grid.walk(-1),
  ArrowRight: () => grid.walk(1),
  ArrowUp: () => grid.walkLine(-1),
  ArrowDown: () => grid.walkLine(1),
  Home: () => grid.walk(-Infinity),
  End: () => grid.walk(Infinity),
  "/": () => $("search").focus(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, summary, dialog:not(#viewer)")) return;
  const isOpen = viewer.isOpen();
  const item = isOpen ? viewer.item : itemAt(grid.current);
  const mark = MARKS.find(({ key }) => key === event.key.toLowerCase())?.mark;
  const step = (isOpen ? VIEWER_KEYS : GRID_KEYS)[event.key];
  if (mark && item && source.mark) giveMark(item, mark);
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
