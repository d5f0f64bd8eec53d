// The report of a training: its samples are looked at in the viewer of photographs.

const samples = [...document.querySelectorAll(".sample")];
const list = { total: samples.length };
const PAGE = Infinity;
const source = {
  sides: ["before"],
  full: (item) => item.url,
  thumbnail: (item) => item.url,
};
const grid = {
  current: 0,
  walk: () => samples[grid.current].focus(),
};
const label = (name) => name;
const need = async () => {};

function itemAt(place) {
  const image = samples[place]?.querySelector("img");
  if (!image) return undefined;
  const figures = { width: image.naturalWidth, height: image.naturalHeight };
  return { row: place, key: image.alt, status: "ok", url: image.src, figures };
}

for (const [place, sample] of samples.entries()) sample.addEventListener("click", () => viewer.open(place));
listenToViewer();
document.addEventListener("keydown", (event) => {
  if (!viewer.isOpen() || event.ctrlKey || event.metaKey || event.altKey || !VIEWER_KEYS[event.key]) return;
  VIEWER_KEYS[event.key]();
  event.preventDefault();
});
