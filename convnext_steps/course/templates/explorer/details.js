/** What is shown of the chosen step. */
function details(step, regime, data) {
  const parent = regime.steps.find((other) => other.name === step.against);
  const section = data.sections[step.section];
  const parts = [
    element("p", { className: "note" },
      element("span", { className: "swatch", style: `background: ${section.color}` }),
      `Section ${step.section}, ${section.title}`,
      parent ? `; compared with “${parent.title}”` : "; where the roadmap begins",
      step.probe ? "; a probe: no later step builds on it" : ""),
    heading("What it buys"), accuracyTable(step, regime),
    heading("What it changes"), ...changes(step, parent),
    heading("The block"), drawing(step.drawing),
    heading("What it costs"), ...costs(step, parent),
  ];
  if (step.diff) parts.push(heading("The networks built, before and after"), diff(step));
  return parts;
}

function heading(text) {
  return element("h3", {}, text);
}

/** A table with a head row; the first cell of each row heads it. */
function table(head, rows) {
  const cells = ([first, ...rest]) => element("tr", {},
    element("th", { scope: "row" }, first), ...rest.map((text) => element("td", {}, text)));
  return element("div", { className: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows.map(cells))));
}

function accuracyTable(step, regime) {
  const { gain, ours, paper } = step;
  const rows = [];
  if (ours) {
    rows.push(["ours, mean", percent(ours.top1), gainText(gain, ""), gain?.verdict ?? "–"]);
    for (const { seed, top1 } of ours.seeds) rows.push([`seed ${seed}`, percent(top1), "", ""]);
  }
  rows.push([`the paper (${regime.table})`, percent(paper.top1) + spread(paper.top1, paper.std),
    gainText(gain, "paper_"), gain?.paper_verdict ?? "–"]);
  const nothing = "No results of our own here: these are only the paper's. ";
  const margins = "± after a gain: half the width of its 95 % interval, over the seeds that both steps have; " +
    "after the paper's accuracy: its standard deviation.";
  return element("div", {}, table(["", "accuracy", "gain in points", "verdict"], rows),
    element("p", { className: "note" }, (ours ? "" : nothing) + margins));
}

function gainText(gain, whose) {
  const difference = gain?.[`${whose}difference`];
  return difference == null ? "–" : signed(difference) + spread(difference, gain[`${whose}margin`]);
}

/** The decision in the design's own words. */
function changes(step, parent) {
  const fields = Object.entries(step.fields);
  if (fields.length) {
    const text = (value) => (Array.isArray(value) ? value.join("-") : String(value));
    return [table(["field of the design", "before", "after"],
      fields.map(([name, [before, after]]) => [name, text(before), text(after)]))];
  }
  return [element("p", {}, parent
    ? "Nothing in the network: the training recipe alone."
    : "Nothing yet: this is the network and the recipe that the roadmap starts from.")];
}

function drawing({ svg, alternative, caption }) {
  const source = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  const image = element("img", { src: source, alt: `Block drawing. ${alternative}` });
  image.addEventListener("load", () => { image.style.minWidth = `${0.6 * image.naturalWidth}px`; });
  return element("figure", {},
    element("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": "Block drawing" }, image),
    element("figcaption", {}, caption));
}

function diff(step) {
  const kinds = { "+": "add", "-": "remove" };
  const lines = step.diff.split("\n").map((line) =>
    element("span", { className: kinds[line[0]] ?? "" }, line || " "));
  return element("pre", { tabIndex: 0, role: "region", "aria-label": "Difference of the networks" }, ...lines);
}

function costs(step, parent) {
  const change = (name) => (parent ? ` (${signed((100 * (step[name] - parent[name])) / parent[name])} %)` : "");
  const printed = `${step.printed.toFixed(2)} G${step.erratum ? " *" : ""}`;
  const head = ["", "at 224×224", "the paper prints"];
  const counts = [
    ["multiply-adds", giga(step.macs) + change("macs"), printed],
    ["parameters", mega(step.params) + change("params"), ""],
  ];
  const parts = [];
  if (step.ours) {
    head.push("as trained here");
    counts[0].push(mega(step.ours.macs));
    counts[1].push(mega(step.ours.params));
  }
  parts.push(table(head, counts));
  if (step.erratum) parts.push(element("p", { className: "note" }, `* ${step.erratum}`));
  if (step.ours) parts.push(...times(step.ours, parent?.ours));
  return parts;
}

function times(ours, before) {
  const seconds = ours.seeds.map((seed) => `${seed.seconds.toFixed(0)} s (seed ${seed.seed})`);
  const against = before ? `, ${(ours.seconds / before.seconds).toFixed(2)} times the step before` : "";
  return [
    element("p", {}, `Training took ${ours.seconds.toFixed(0)} s on average${against}: ${seconds.join(", ")}.`),
    element("p", { className: "note" },
      "Measured on the machine that trained, which may have been busy with other work: a hint, not a benchmark."),
  ];
}
