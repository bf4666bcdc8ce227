"""The style of the HTML report: light and dark as the browser asks for, for wide and narrow windows, and for paper.

Every colour of text has a contrast of at least 4.5 to its background (WCAG 2.2, 1.4.3).

This module is pure.
"""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root {
  --page: #fafaf8; --card: #ffffff; --text: #1c2228; --quiet: #5b6570; --line: #dfe2e4; --faint: #eef0f1;
  --bar: #4a7fb5; --good: #1d6b3a; --warn: #8a5200; --bad: #b0201c;
  --good-back: #e9f4ec; --warn-back: #fbf1e0; --bad-back: #fbe9e7;
  --sans: system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", Roboto, sans-serif;
  --code: ui-monospace, "Cascadia Mono", "SF Mono", "Noto Sans Mono", "DejaVu Sans Mono", Menlo, monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1b1f23; --text: #dde2e6; --quiet: #98a3ad; --line: #31373d; --faint: #24292e;
    --bar: #6fa3d6; --good: #7bc492; --warn: #e3b15e; --bad: #ff8f86;
    --good-back: #1a2a20; --warn-back: #2d2618; --bad-back: #33201f;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 var(--sans);
  font-variant-numeric: tabular-nums;
}
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.5rem 1rem; }
header { display: flex; flex-wrap: wrap; align-items: baseline; justify-content: space-between; gap: 0 1.5rem; }
h1 { margin: 0; font-size: 1.35rem; font-weight: 500; letter-spacing: -.01em; }
h1 .host { font-weight: 700; overflow-wrap: anywhere; }
header p, footer { color: var(--quiet); font-size: .875rem; margin: 0; }
footer { max-width: 68rem; margin: 0 auto; padding: 0 1.5rem 2rem; }
h2 { margin: 0; font-size: 1.05rem; font-weight: 650; letter-spacing: -.005em; }
section { margin-top: 2.25rem; }
p { margin: 0; }
.lead { color: var(--quiet); margin-bottom: .75rem; max-width: 48rem; }
.state {
  margin-top: 1rem; padding: .8rem 1rem; border-left: .3rem solid currentColor; border-radius: .2rem;
  font-size: 1.05rem;
}
.state strong { margin-right: .5rem; font-size: 1.2rem; }
.state.good { color: var(--good); background: var(--good-back); }
.state.warn { color: var(--warn); background: var(--warn-back); }
.state.bad { color: var(--bad); background: var(--bad-back); }
.facts {
  display: flex; flex-wrap: wrap; gap: 1px; margin: 1rem 0 0;
  background: var(--line); border: 1px solid var(--line); border-radius: .3rem; overflow: hidden;
}
.facts div { flex: 1 1 8.3rem; background: var(--card); padding: .6rem .8rem .7rem; }
dt { color: var(--quiet); font-size: .8rem; }
dd { margin: 0; }
dd b { display: block; font-size: 1.3rem; line-height: 1.35; font-weight: 600; }
dd span {
  display: block; color: var(--quiet); font-size: .8rem; line-height: 1.35; overflow-wrap: anywhere;
  text-wrap: balance;
}
dd.good b, .good { color: var(--good); }
dd.warn b { color: var(--warn); }
dd.bad b { color: var(--bad); }
.attention ul { list-style: none; margin: .5rem 0 0; padding: 0; }
.attention li { border-left: .2rem solid var(--warn); padding: .15rem 0 .15rem .8rem; margin-top: .5rem; }
.attention li.bad { border-color: var(--bad); }
.attention .advice { color: var(--quiet); font-size: .875rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin-top: 2rem; font-size: .875rem; }
nav a { color: var(--quiet); text-decoration: none; border-bottom: 1px solid var(--line); }
nav a:hover, nav a:focus { color: var(--text); border-color: currentColor; }
figure { margin: 0; }
svg.time { display: block; width: 100%; height: auto; overflow: visible; }
svg.narrow { display: none; }
svg text { fill: var(--quiet); font: 11.5px var(--sans); font-variant-numeric: tabular-nums; }
svg .number { text-anchor: end; }
svg .when { text-anchor: middle; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .tick { stroke: var(--quiet); stroke-width: 1; }
.bar { fill: var(--bar); }
g:hover > .bar { fill: var(--text); }
.mark { fill: var(--quiet); }
.mark.open { fill: var(--bad); }
.mark.drift { fill: var(--warn); }
figcaption { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; color: var(--quiet); font-size: .8rem; }
.key { width: .75rem; height: .7rem; margin-right: .35rem; vertical-align: -.05rem; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.4; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
th { font-weight: 500; text-align: left; }
thead th { color: var(--quiet); font-size: .8rem; border-bottom: 1px solid var(--line); padding: 0 .8rem .3rem 0; }
td, tbody th { padding: .32rem .8rem .32rem 0; vertical-align: top; border-bottom: 1px solid var(--faint); }
tr > :last-child { padding-right: 0; }
.scroll { overflow-x: auto; }
.scroll table { width: 100%; }
.scroll td { overflow-wrap: anywhere; }
.scroll td:first-child { white-space: nowrap; }
th.number, td.number { text-align: right; white-space: nowrap; }
.days td.number { padding-left: 1.5rem; }
td.code { font-family: var(--code); font-size: .8rem; line-height: 1.6; }
.detail {
  display: block; color: var(--quiet); font-family: var(--code); font-size: .78rem; line-height: 1.5;
  overflow-wrap: anywhere;
}
tr.bad > :first-child { box-shadow: -.5rem 0 0 -.3rem var(--bad); }
tr.bad td:first-child { color: var(--bad); }
tr.warn td:first-child { color: var(--warn); }
tr.quiet td { color: var(--quiet); }
.note { font-size: .875rem; margin-top: .5rem; color: var(--quiet); }
.note.warn { color: var(--warn); }
.rankings { columns: 2 21rem; column-gap: 2.5rem; }
.rankings > div { break-inside: avoid; padding-bottom: 1.5rem; }
.rankings > div:only-child { column-span: all; max-width: 34rem; }
.ranking { width: 100%; table-layout: fixed; }
.ranking th:first-child { width: auto; }
.ranking thead th.number { width: 7.6rem; }
.ranking thead th.number:last-child { width: 5.2rem; }
.ranking tbody th { font-family: var(--code); font-weight: 400; font-size: .8rem; padding-bottom: .2rem; }
.ranking tbody th span { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.ranking td.quiet { color: var(--quiet); }
.ranking td, .ranking tbody th { border-bottom: 0; }
.percent { display: inline-block; width: 3.4rem; padding-left: .3rem; color: var(--quiet); font-size: .8rem; }
.share { display: block; width: 100%; height: .3rem; margin-top: .12rem; }
.days { margin-top: .8rem; width: 100%; max-width: 36rem; }
.days td, .days tbody th { padding-top: .15rem; padding-bottom: .15rem; }
.days th { color: var(--quiet); font-weight: 400; white-space: nowrap; }
.days .plot { width: 60%; vertical-align: middle; }
.days .share { height: .5rem; margin: 0; }
@media (max-width: 40rem) {
  main { padding: 1.2rem 1rem .5rem; }
  footer { padding: 0 1rem 1.5rem; }
  svg.wide { display: none; }
  svg.narrow { display: block; }
  .rankings { columns: 1; }
  .scroll thead { display: none; }
  .scroll table, .scroll tbody, .scroll tr, .scroll td { display: block; width: auto; }
  .scroll tr { padding: .45rem 0; border-bottom: 1px solid var(--line); }
  .scroll td { padding: 0 0 .1rem 6.5rem; border: 0; text-align: left; white-space: normal; position: relative; }
  .scroll td:empty { display: none; }
  .scroll td::before {
    content: attr(data-title); position: absolute; left: 0; width: 6rem; color: var(--quiet);
    font: .8rem/1.6 var(--sans);
  }
}
@page { margin: 14mm; }
@media print {
  :root {
    --page: #ffffff; --card: #ffffff; --text: #000000; --quiet: #4a4a4a; --line: #b5b5b5; --faint: #dddddd;
    --bar: #4a7fb5; --good: #1d6b3a; --warn: #8a5200; --bad: #b0201c;
    --good-back: #ffffff; --warn-back: #ffffff; --bad-back: #ffffff;
  }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 9.5pt; }
  html { font-size: 14px; }
  .rankings { columns: 2 14rem; column-gap: 2rem; }
  main { padding: 0; max-width: none; }
  nav { display: none; }
  footer { padding: 1rem 0 0; max-width: none; }
  section { margin-top: 1.4rem; }
  h2, .lead { break-after: avoid; }
  tr, li, figure, .facts, .state { break-inside: avoid; }
  .scroll tr { break-inside: auto; }
  .whole { break-inside: avoid; }
  .scroll { overflow: visible; }
  thead { display: table-header-group; }
  .facts div { flex-basis: 6.2rem; padding: .4rem .5rem; }
  dd b { font-size: 1.1rem; }
  dt { white-space: nowrap; }
}
"""
