// SPDX-License-Identifier: Apache-2.0
//
// Style sheet and script of the report. They are part of an XML document: no '<' and no '&' in the style sheet.
#pragma once

namespace unweight::cli {

inline constexpr char kPageStyle[] = R"css(
:root { color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1c2024; --soft: #60656c; --line: #e3e5e8; --accent: #3561d8;
  --muted: #c3cad6; --floor: #d3541e;
  --s0: #3561d8; --s1: #d3541e; --s2: #1d8a5b; --s3: #8a46c9; --s4: #b98a00; --s5: #0f8ea6; --s6: #c2307f;
  --s7: #6b7a1f; --s8: #7d5a44; --s9: #5c6b80; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171b; --card: #1c2026; --ink: #e8eaed; --soft: #9aa1ab; --line: #2f353d; --accent: #7ea2ff;
  --muted: #4a5361; --floor: #ff9a66;
  --s0: #7ea2ff; --s1: #ff9a66; --s2: #57d19c; --s3: #c39bff; --s4: #ecc24d; --s5: #5ad3e8; --s6: #ff86c3;
  --s7: #c0d05f; --s8: #d3a98c; --s9: #a9b8cc; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 36px 20px 60px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 4px; }
p { margin: 0 0 14px; color: var(--soft); max-width: 100ch; }
header p { margin: 4px 0 22px; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 20px 22px; margin-top: 18px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px; margin: 0; padding: 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.tiles dt { color: var(--soft); font-size: 13px; }
.tiles dd { margin: 2px 0 0; font-size: 24px; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.2; }
.tiles small { display: block; color: var(--soft); font-size: 12.5px; font-weight: 400; margin-top: 3px; }
.tiles .lead { border-color: var(--accent); }
.tiles .lead dd { color: var(--accent); }
.chart { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; }
.wide .chart { min-width: 680px; }
.chart text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
.chart .name, .chart .value { fill: var(--ink); font-size: 13px; white-space: pre; }
.chart .end { text-anchor: end; }
.chart .middle { text-anchor: middle; }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .axis-line { stroke: var(--soft); stroke-width: 1; }
.chart .bar { fill: var(--accent); }
.chart .bar.raw { fill: var(--muted); }
.chart .bar:hover { opacity: 0.75; }
.chart .floor { stroke: var(--floor); stroke-width: 2.5; }
.series path { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round; }
.series circle { fill: currentColor; }
.series circle:hover { stroke: currentColor; stroke-width: 6; stroke-opacity: 0.3; }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); } .s3 { color: var(--s3); }
.s4 { color: var(--s4); } .s5 { color: var(--s5); } .s6 { color: var(--s6); } .s7 { color: var(--s7); }
.s8 { color: var(--s8); } .s9 { color: var(--s9); }
.legend { display: flex; flex-wrap: wrap; gap: 6px 20px; list-style: none; margin: 10px 0 0; padding: 0; font-size: 13.5px; }
.legend b { font-weight: 600; font-variant-numeric: tabular-nums; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px; background: currentColor; margin-right: 7px; }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 3px; background: var(--accent); margin: 0 5px 0 0; }
.key.raw { background: var(--muted); }
.key.floor { width: 3px; height: 14px; border-radius: 0; background: var(--floor); vertical-align: -2px; margin: 0 6px 0 0; }
.grid-of-charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(235px, 1fr)); gap: 18px 22px; margin-top: 18px; }
.grid-of-charts figure { margin: 0; }
.grid-of-charts figcaption { font-size: 13.5px; font-weight: 600; overflow-wrap: anywhere; }
.grid-of-charts small { display: block; color: var(--soft); font-weight: 400; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; cursor: pointer; user-select: none; }
th[aria-sort="ascending"]::after { content: " \25b2"; }
th[aria-sort="descending"]::after { content: " \25bc"; }
td.n, th.n { text-align: right; }
tbody tr:hover { background: color-mix(in srgb, var(--accent) 8%, transparent); }
input { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line); border-radius: 7px; padding: 5px 10px;
  width: min(340px, 100%); margin: 0 0 12px; }
footer { color: var(--soft); font-size: 13px; margin-top: 22px; }
@media print { input { display: none; } section { break-inside: avoid; } }
)css";

inline constexpr char kPageScript[] = R"js(
(() => {
  const table = document.getElementById("tensors");
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.hasAttribute("data-v") ? Number(cell.getAttribute("data-v")) : cell.textContent;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), undefined, { numeric: true });
  headers.forEach((header, column) => header.addEventListener("click", () => {
    const descending = header.getAttribute("aria-sort") === "ascending";
    headers.forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...body.rows].sort((a, b) => compare(value(a, column), value(b, column)));
    if (descending) rows.reverse();
    body.append(...rows);
  }));
  document.getElementById("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  });
})();
)js";

}  // namespace unweight::cli
