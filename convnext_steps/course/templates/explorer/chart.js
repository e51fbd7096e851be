/** Where the parts of the chart are, for a width in pixels; narrow ones have labels on a line. */
function layout(width, hasOurs) {
  const narrow = width < 620;
  const left = narrow ? 12 : 258;
  const right = narrow ? 12 : 76;
  const gap = narrow ? 28 : 36;
  const room = width - left - right - (hasOurs ? gap : 0);
  const ours = hasOurs ? room * 0.5 : 0;
  const panels = { paper: [left + (hasOurs ? ours + gap : 0), width - right] };
  if (hasOurs) panels.ours = [left, left + ours];
  return { narrow, width, panels, top: 46, row: narrow ? 46 : 31, dot: narrow ? 33 : 15.5 };
}

/** The chart of one regime as SVG; its rows are the options of a list box. */
function drawChart(regime, sections, width) {
  const hasOurs = regime.study !== null;
  const place = layout(width, hasOurs);
  const bottom = place.top + regime.steps.length * place.row;
  const svg = shape("svg", {
    viewBox: `0 0 ${width} ${bottom + 40}`, role: "listbox",
    "aria-label": `Steps from ${regime.title}: accuracy of each`,
  });
  const rows = regime.steps.map((step, index) => drawRow(step, index, place));
  svg.append(...rows);
  for (const [name, range] of Object.entries(place.panels)) {
    const values = regime.steps.flatMap((step) => valuesOf(step, name));
    if (name === "paper") values.push(regime.swin.top1);
    const axis = scale(values, range);
    svg.append(drawAxis(axis, name, place, bottom));
    if (name === "paper") svg.append(drawSwin(axis, regime.swin, place, bottom));
    svg.append(drawChain(regime.steps, axis, name, place));
    regime.steps.forEach((step, index) => {
      const y = place.top + index * place.row + place.dot;
      rows[index].append(...drawMarks(step, axis, name, y, sections[step.section].color));
    });
  }
  svg.append(...rows); // in front of the axes
  return svg;
}

/** All accuracies of a step in one panel. */
function valuesOf(step, panel) {
  if (panel === "paper") {
    const { top1, std } = step.paper;
    return [top1 - (std ?? 0), top1 + (std ?? 0)];
  }
  return step.ours ? step.ours.seeds.map((seed) => seed.top1) : [];
}

function mean(step, panel) {
  return panel === "paper" ? step.paper.top1 : step.ours?.top1;
}

/** One row without its marks: what can be chosen, and its texts. */
function drawRow(step, index, place) {
  const y = place.top + index * place.row;
  const title = step.probe ? `${step.title} (probe)` : step.title;
  const own = step.ours ? `, ours ${percent(step.ours.top1)}` : "";
  const baseline = y + (place.narrow ? 18 : 20);
  const macs = place.narrow ? [] : [shape("text",
    { class: "soft number", x: place.width - 10, y: baseline, "text-anchor": "end" }, giga(step.macs))];
  return shape("g", {
    class: "row", role: "option", "data-step": step.name, tabindex: -1, "aria-selected": false,
    "aria-label": `${title}, Section ${step.section}${own}, the paper's ${percent(step.paper.top1)}`,
  },
  shape("rect", { x: 2, y: y + 1, width: place.width - 4, height: place.row - 2, rx: 5 }),
  shape("text", { x: 10, y: baseline }, title), ...macs);
}

function drawAxis(axis, panel, place, bottom) {
  const [from, to] = place.panels[panel];
  const titles = { ours: "our study, %", paper: "the paper, %" };
  const group = shape("g", { "aria-hidden": true, "pointer-events": "none" },
    shape("text", { x: from, y: 16 }, titles[panel]));
  if (panel === "paper" && !place.narrow) {
    group.append(shape("text", { class: "soft", x: place.width - 10, y: 16, "text-anchor": "end" }, "mult-adds"));
  }
  for (const tick of axis.ticks) {
    const x = axis.at(tick), label = tick.toFixed(axis.digits);
    group.append(shape("line", { class: "grid", x1: x, x2: x, y1: place.top, y2: bottom }));
    for (const y of [place.top - 8, bottom + 16]) {
      group.append(shape("text", { class: "soft number", x, y, "text-anchor": "middle" }, label));
    }
  }
  return group;
}

function drawSwin(axis, swin, place, bottom) {
  const x = axis.at(swin.top1);
  return shape("g", { "aria-hidden": true, "pointer-events": "none" },
    shape("line", { class: "swin", x1: x, x2: x, y1: place.top, y2: bottom + 22 }),
    shape("text", { class: "soft", x: x + 3, y: bottom + 34, "text-anchor": "end" }, `${swin.title}`));
}

/** The line through the steps that build on each other; probes are off it. */
function drawChain(steps, axis, panel, place) {
  const points = steps.flatMap((step, index) => {
    const value = mean(step, panel);
    if (step.probe || value == null) return [];
    return [`${axis.at(value)},${place.top + index * place.row + place.dot}`];
  });
  return shape("polyline", { class: "chain", points: points.join(" "), "pointer-events": "none" });
}

/** Ours: one dot per seed below a circle at their mean; the paper's: a square with its std. */
function drawMarks(step, axis, panel, y, color) {
  const value = mean(step, panel);
  if (value == null) return [];
  const x = axis.at(value);
  const style = `fill: ${color};` + (step.probe ? `stroke: ${color};` : "");
  const name = step.probe ? "mark probe" : "mark";
  if (panel === "ours") {
    const seeds = step.ours.seeds.map((seed) =>
      shape("circle", { class: "seed", cx: axis.at(seed.top1), cy: y, r: 2.2 }));
    return [shape("circle", { class: name, cx: x, cy: y, r: 6, style }), ...seeds];
  }
  const marks = [shape("rect", { class: name, x: x - 4.5, y: y - 4.5, width: 9, height: 9, style })];
  if (step.paper.std) {
    const [x1, x2] = [axis.at(value - step.paper.std), axis.at(value + step.paper.std)];
    marks.push(shape("line", { class: "whisker", x1, x2, y1: y, y2: y }));
  }
  return marks;
}
