"""The style sheet of reports: quiet, in light and dark, on a phone and on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fbfaf8; --raised: #ffffff; --text: #1f2328; --quiet: #626a73; --line: #dedbd5;
  --accent: #0f766e; --accent-soft: #e8f3f1; --warning: #8a4b08; --warning-soft: #fdf1df;
  --alarm: #a11622; --alarm-soft: #fdeaea;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15181b; --raised: #1c2024; --text: #e3e5e7; --quiet: #9aa3ab; --line: #333a40;
    --accent: #5cc4b6; --accent-soft: #17302d; --warning: #f0b866; --warning-soft: #352814;
    --alarm: #ff8f8f; --alarm-soft: #3d1a1c;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 3rem 1.5rem 4rem; max-width: 64rem;
  background: var(--page); color: var(--text);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1, h2 {
  font-family: Charter, "Bitstream Charter", "Iowan Old Style", "Source Serif 4", Georgia, serif;
  font-weight: 600; line-height: 1.2; text-wrap: balance; overflow-wrap: anywhere;
}
h1 { margin: 0 0 1rem; font-size: 2.25rem; letter-spacing: -0.01em; }
h2 { margin: 0 0 1rem; font-size: 1.6rem; }
h3 { margin: 2rem 0 0.5rem; font-size: 1rem; font-weight: 600; line-height: 1.4; }
a { color: var(--accent); text-underline-offset: 0.2em; text-decoration-thickness: 1px; }
p { margin: 0 0 0.75rem; max-width: 46rem; overflow-wrap: break-word; }

.banner {
  max-width: none; margin: 0 0 0.75rem; padding: 0.65rem 1rem; border-radius: 0.4rem;
  background: var(--warning-soft); color: var(--warning); font-weight: 600;
}
.purpose { color: var(--quiet); }
nav { margin: 1.5rem 0; padding: 0.75rem 0; border-block: 1px solid var(--line); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.5rem; margin: 0; padding: 0; }
nav li { list-style: none; }
section { margin-top: 3.5rem; padding-top: 2rem; border-top: 1px solid var(--line); }

.answers { display: grid; gap: 0.75rem; margin: 1.5rem 0; padding: 0; }
.answer {
  display: grid; grid-template-columns: 2rem minmax(0, 1fr); gap: 0.9rem;
  padding: 0.9rem 1.1rem; border: 1px solid var(--line); border-left: 5px solid var(--state);
  border-radius: 0.4rem; background: var(--raised); list-style: none; --state: var(--quiet);
}
.answer svg {
  width: 2rem; height: 2rem; fill: none; stroke: var(--state); stroke-width: 2;
  stroke-linecap: round; stroke-linejoin: round;
}
.answer p { max-width: none; margin: 0; }
.answer .question { font-weight: 600; }
.answer b { margin-left: 0.35rem; color: var(--state); white-space: nowrap; }
.answer b::before { content: "– "; }
.good { --state: var(--accent); }
.in-doubt { --state: var(--warning); }
.bad { --state: var(--alarm); background: var(--alarm-soft); border-color: var(--alarm); }
.bad b { text-transform: uppercase; letter-spacing: 0.04em; }

.remark { margin-bottom: 0.6rem; }
.alarm {
  padding: 0.75rem 1rem; border: 2px solid var(--alarm); border-radius: 0.4rem;
  background: var(--alarm-soft);
}
.alarm strong { color: var(--alarm); }
.missing {
  max-width: 46rem; margin: 1rem 0; padding: 0.75rem 1rem; border: 1px dashed var(--quiet);
  border-radius: 0.4rem; overflow-wrap: anywhere;
}
.missing p { margin: 0; font-weight: 600; }
.missing ul { margin: 0.25rem 0 0; padding-left: 1.2rem; }

.scroll {
  max-width: 100%; overflow-x: auto; border: 1px solid var(--line); border-radius: 0.4rem;
  background: var(--raised);
}
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; line-height: 1.4; }
th, td { padding: 0.5rem 0.9rem; text-align: left; vertical-align: baseline; }
thead th { color: var(--quiet); font-weight: 500; vertical-align: bottom; }
tbody th { font-weight: 500; }
tbody tr { border-top: 1px solid var(--line); }
table.summary tbody tr:first-child { border-top: 0; }
table.summary th { width: 12rem; color: var(--quiet); font-weight: 400; }
table.summary td { overflow-wrap: anywhere; }
.number { text-align: right; font-variant-numeric: tabular-nums lining-nums; }
td.number { white-space: nowrap; }
td.interval, .number span { color: var(--quiet); font-size: 0.92em; }
td.interval { width: 1%; padding-left: 0; }
.number span { display: block; }
.note, figcaption { margin-top: 0.5rem; color: var(--quiet); font-size: 0.875rem; }

figure { margin: 2rem 0 0; }
figure img {
  display: block; max-width: 100%; height: auto; border-radius: 0.4rem; background: #ffffff;
}
figcaption { max-width: 46rem; }

details { margin-top: 2rem; border: 1px solid var(--line); border-radius: 0.4rem; }
summary { padding: 0.6rem 1rem; cursor: pointer; color: var(--quiet); font-size: 0.9rem; }
summary:hover { color: var(--text); }
details > dl, details > div, details > p { padding: 0.25rem 1rem 1rem; }
details h3:first-child { margin-top: 0.5rem; }
dl {
  display: grid; grid-template-columns: minmax(6rem, max-content) minmax(0, 1fr);
  gap: 0.3rem 1.25rem; margin: 0; font-size: 0.875rem; line-height: 1.5;
}
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
dd.nested { margin-bottom: 0.4rem; padding-left: 0.9rem; border-left: 1px solid var(--line); }
dd ol { margin: 0; padding-left: 1.2rem; }
dd li + li { margin-top: 0.6rem; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 0.9em; }
abbr { text-decoration: underline dotted var(--quiet); text-underline-offset: 0.2em; }
footer { margin-top: 4rem; color: var(--quiet); font-size: 0.875rem; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }

@media (max-width: 40rem) {
  body { padding: 1.75rem 1rem 3rem; }
  h1 { font-size: 1.75rem; }
  h2 { font-size: 1.4rem; }
  section { margin-top: 2.5rem; padding-top: 1.5rem; }
  th, td { padding: 0.45rem 0.7rem; }
  tbody th, thead th:first-child { position: sticky; left: 0; background: var(--raised); }
  .scroll tbody th { min-width: 8.5rem; overflow-wrap: anywhere; }
  .scroll .summary th { position: static; min-width: 0; width: 7rem; }
  dl { grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: 0.3rem 0.75rem; }
  dd.nested { grid-column: 1 / -1; }
}

@media print {
  :root {
    color-scheme: light;
    --page: #ffffff; --raised: #ffffff; --text: #000000; --quiet: #4a4f55; --line: #bbbbbb;
    --accent: #0f766e; --accent-soft: #ffffff; --warning: #7a3d00; --warning-soft: #ffffff;
    --alarm: #8f0d18; --alarm-soft: #ffffff;
  }
  html { font-size: 9.5pt; }
  body { max-width: none; padding: 0; }
  nav { display: none; }
  .banner { border: 1.5pt solid var(--warning); }
  .scroll { overflow: visible; border: 0; }
  th, td { padding: 0.35rem 0.5rem; }
  h2, h3 { break-after: avoid; }
  tr, figure, .answer, .alarm { break-inside: avoid; }
  thead { display: table-header-group; }
  details:not([open])::details-content { content-visibility: visible; block-size: auto; }
}
"""
