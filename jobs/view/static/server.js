"use strict";
// Where the page of `nst view` has its rows and pictures from: the server that it came from.

const source = {
  job: () => ask("api/job"),
  /** It may have other rows the next time. */
  grows: true,
  rows: (query, first, count, { locate, headings } = {}) => {
    const asked = new URLSearchParams({ ...query, first, count });
    if (locate !== undefined) asked.set("locate", locate);
    if (headings) asked.set("headings", "1");
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
