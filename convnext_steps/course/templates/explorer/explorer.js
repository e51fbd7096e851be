const state = { regime: data.opens, step: null };

const regimeNow = () => data.regimes[state.regime];
const stepsNow = () => regimeNow().steps;
const rows = () => [...byId("chart").querySelectorAll(".row")];

/** Choose a step; the keyboard's focus follows if it is in the chart. */
function choose(name, focus = false) {
  state.step = name;
  const index = stepsNow().findIndex((step) => step.name === name);
  const step = stepsNow()[index];
  for (const row of rows()) {
    const chosen = row.dataset.step === name;
    row.setAttribute("aria-selected", chosen);
    row.setAttribute("tabindex", chosen ? 0 : -1);
    if (chosen && focus) row.focus();
  }
  byId("step-title").textContent = step.title;
  byId("step").replaceChildren(...details(step, regimeNow(), data));
  byId("position").textContent = `${index + 1} of ${stepsNow().length}`;
  byId("previous").disabled = index === 0;
  byId("next").disabled = index === stepsNow().length - 1;
  history.replaceState(null, "", `#${state.regime}/${name}`);
}

/** Choose the step this many rows further on, as far as there are rows. */
function move(by, focus) {
  const names = stepsNow().map((step) => step.name);
  const index = Math.min(Math.max(names.indexOf(state.step) + by, 0), names.length - 1);
  choose(names[index], focus);
}

function drawAgain() {
  const hadFocus = byId("chart").contains(document.activeElement);
  byId("chart").replaceChildren(drawChart(regimeNow(), data.sections, byId("chart").clientWidth));
  choose(state.step, hadFocus);
}

function chooseRegime(name) {
  state.regime = name;
  const { study, seeds, table } = regimeNow();
  byId("chart-note").textContent = study
    ? `Circles: means of the study “${study.name}” (${study.description}), with a dot for ` +
      `${seeds.length === 1 ? "its one seed" : `each of ${seeds.length} seeds`}. Squares: quoted ` +
      `from the paper's ${table}, with the standard deviation where it prints one. ` +
      "The axes are cut and differ: look at differences."
    : `There are no results of our own for this roadmap yet, only the paper's (${table}).`;
  document.querySelector(`input[value="${name}"]`).checked = true;
  drawAgain();
}

function showTooltip(event) {
  const row = event.target.closest(".row");
  byId("tooltip").hidden = !row;
  if (!row) return;
  const step = stepsNow().find(({ name }) => name === row.dataset.step);
  const { ours, paper } = step;
  const lines = [`the paper: ${percent(paper.top1)}${spread(paper.top1, paper.std)}`];
  if (ours) lines.unshift(`ours: ${ours.seeds.map((seed) => percent(seed.top1)).join(", ")}`);
  lines.push(`${giga(step.macs)} multiply-adds, ${mega(step.params)} parameters`);
  byId("tooltip").replaceChildren(element("b", {}, step.title),
    ...lines.map((line) => element("div", {}, line)));
  const { offsetWidth, offsetHeight } = byId("tooltip");
  byId("tooltip").style.left = `${Math.min(event.clientX + 14, innerWidth - offsetWidth - 8)}px`;
  byId("tooltip").style.top = `${Math.min(event.clientY + 16, innerHeight - offsetHeight - 8)}px`;
}

function listen() {
  const far = stepsNow().length;
  const keys = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -far, End: far };
  byId("chart").addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    move(keys[event.key], true);
  });
  byId("chart").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) choose(row.dataset.step, true);
  });
  byId("chart").addEventListener("pointermove", showTooltip);
  byId("chart").addEventListener("pointerleave", () => { byId("tooltip").hidden = true; });
  byId("previous").addEventListener("click", () => move(-1, false));
  byId("next").addEventListener("click", () => move(1, false));
  byId("regimes").addEventListener("change", (event) => chooseRegime(event.target.value));
  addEventListener("hashchange", readAddress);
  onNewWidth(drawAgain);
}

/** Show what `#regime/step` of the address names, or else the first step. */
function readAddress() {
  const [regime, step] = location.hash.slice(1).split("/");
  if (regime in data.regimes) state.regime = regime;
  const named = stepsNow().find(({ name }) => name === step);
  state.step = (named ?? stepsNow()[0]).name;
  chooseRegime(state.regime);
}

function begin() {
  for (const [name, { title }] of Object.entries(data.regimes)) {
    const input = element("input", { type: "radio", name: "regime", value: name });
    byId("regimes").append(element("label", {}, input, ` ${title}`));
  }
  for (const [section, { title, color }] of Object.entries(data.sections)) {
    const swatch = element("span", { className: "swatch", style: `background: ${color}` });
    byId("legend").append(element("li", {}, swatch, `${section} ${title}`));
  }
  listen();
  readAddress();
}

begin();
