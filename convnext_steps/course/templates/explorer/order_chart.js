/** The curve of an order beside the paper's, as SVG; either may be missing. */
function drawOrders(mine, paper, decisions, width) {
  const narrow = width < 520;
  const height = narrow ? 220 : 360;
  const [left, right, top, bottom] = [38, 10, 12, height - 38];
  const svg = shape("svg", {
    viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": inWords(mine, decisions),
  });
  const across = (place) => left + ((width - left - right) * (place + 0.5)) / (decisions.length + 1);
  const shown = [mine, paper].flatMap((curve) => curve?.points ?? []);
  const ends = shown.flatMap(reach);
  const up = scale(ends.length ? ends : [0, 100], [bottom, top]);
  for (const tick of up.ticks) {
    const y = up.at(tick);
    svg.append(shape("line", { class: "grid", x1: left, x2: width - right, y1: y, y2: y }),
      shape("text", { class: "soft number", x: left - 6, y: y + 4, "text-anchor": "end" }, tick.toFixed(up.digits)));
  }
  for (let place = 0; place <= decisions.length; place++) {
    svg.append(shape("text",
      { class: "soft number", x: across(place), y: bottom + 18, "text-anchor": "middle" }, place));
  }
  svg.append(shape("text", { class: "soft", x: left, y: height - 4 },
    "accuracy in %, after this many decisions"));
  for (const [curve, name] of [[paper, "paper"], [mine, "mine"]]) {
    if (!curve) continue;
    const points = curve.points.map(({ accuracy }, place) => `${across(place)},${up.at(accuracy)}`);
    svg.append(shape("polyline", { class: `line ${name}`, points: points.join(" ") }));
    curve.points.forEach((point, place) => svg.append(
      ...marks(point, across(place), up.at, name, decisions[curve.order[place - 1]])));
  }
  return svg;
}

/** A point: solid where it is measured, hollow with its interval where it is predicted. */
function marks({ accuracy, margin, runs }, x, at, name, decision) {
  const color = name === "mine" ? `--mark: ${decision?.color ?? "var(--ink)"}` : "--mark: var(--soft)";
  const kind = `${runs ? "measured" : "predicted"} ${name}`;
  const [low, high] = reach({ accuracy, margin });
  const whisker = runs || name === "paper" ? [] : [shape("line",
    { class: "whisker", x1: x, x2: x, y1: at(low), y2: at(high) })];
  const size = name === "mine" ? 6 : 4;
  const mark = name === "mine"
    ? shape("circle", { class: kind, style: color, cx: x, cy: at(accuracy), r: size })
    : shape("rect", { class: kind, style: color, x: x - size, y: at(accuracy) - size, width: 2 * size, height: 2 * size });
  mark.append(shape("title", {}, `${decision?.title ?? "ResNet"}: ${pointText({ accuracy, margin, runs })}`));
  return [...whisker, mark];
}

/** The ends of a point's interval, as far as an accuracy can be: the model is linear and knows no limits. */
function reach({ accuracy, margin = 0 }) {
  return [Math.max(0, accuracy - margin), Math.min(100, accuracy + margin)];
}

function pointText({ accuracy, margin, runs }) {
  if (runs) return `${percent(accuracy)}, measured${runs > 1 ? `, mean of ${runs} runs` : ""}`;
  return `${percent(accuracy)} ± ${margin.toFixed(2)}, predicted`;
}

function inWords(mine, decisions) {
  if (!mine) return "The curve of your order is not drawn: the rules forbid it.";
  const words = mine.points.map((point, place) =>
    `${place ? decisions[mine.order[place - 1]].title : "ResNet"} ${pointText(point)}`);
  return `Accuracy along your order: ${words.join("; ")}.`;
}
