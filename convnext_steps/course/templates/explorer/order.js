const names = data.decisions.map(({ name }) => name);
const model = orderModel(data);
const numbersOf = (order) => order.map((name) => names.indexOf(name));
const paper = model.curve(numbersOf(data.orders.paper));
const paperCredit = new Map((paper?.credits ?? []).map(({ decision, change }) => [decision, change]));
const state = { order: numbersOf(data.orders.paper) };

const cards = () => [...byId("cards").children];
const cardOf = (decision) => cards().find((card) => card.dataset.decision === names[decision]);
const title = (decision) => data.decisions[decision].title;

/** Take an order, draw it and put it into the address; the moved card keeps focus and pointer. */
function show(order, note = "", moved = order[0]) {
  state.order = order;
  const mine = model.curve(order);
  drawChart(mine);
  const place = order.indexOf(moved), sorted = order.map(cardOf);
  cardOf(moved).before(...sorted.slice(0, place));
  cardOf(moved).after(...sorted.slice(place + 1));
  order.forEach((decision, place) => fill(cardOf(decision), decision, place, mine?.credits[place]));
  byId("message").textContent = mine ? note : forbidden(order);
  byId("message").className = mine ? "" : "forbidden";
  for (const button of byId("orders").children) {
    button.setAttribute("aria-pressed", String(numbersOf(data.orders[button.value])) === String(order));
  }
  history.replaceState(null, "", `#${order.map((decision) => names[decision]).join(",")}`);
}

function forbidden(order) {
  const [one, needed] = model.broken(order);
  return `No curve: “${title(one)}” needs “${title(needed)}” before it.`;
}

function drawChart(mine) {
  byId("chart").replaceChildren(drawOrders(mine, paper, data.decisions, byId("chart").clientWidth));
}

/** A card's numbers: its place, its credit here and its credit in the paper's order. */
function fill(card, decision, place, credit) {
  const text = credit ? `${signed(credit.change)} ± ${credit.margin.toFixed(2)}` : "–";
  const papers = paperCredit.has(decision) ? signed(paperCredit.get(decision)) : "–";
  card.querySelector(".place").textContent = place + 1;
  card.querySelector(".credit").textContent = text;
  card.querySelector(".papers").textContent = papers;
  card.setAttribute("aria-label",
    `${place + 1} of ${names.length}: ${title(decision)}, credit ${text}, in the paper's order ${papers}`);
  const [up, down] = card.querySelectorAll("button");
  up.disabled = place === 0;
  down.disabled = place === names.length - 1;
}

/** Move a decision to another place, as far as there are places. */
function move(decision, to) {
  const order = state.order.filter((other) => other !== decision);
  const place = Math.min(Math.max(to, 0), order.length);
  if (state.order[place] === decision) return;
  order.splice(place, 0, decision);
  show(order, `${title(decision)} is now ${place + 1} of ${names.length}.`, decision);
}

function makeCard(decision) {
  const { name, color } = data.decisions[decision];
  const by = (step, sign, word) => {
    const button = element("button", { type: "button", tabIndex: -1, "aria-label": `${title(decision)} ${word}` }, sign);
    button.addEventListener("click", () => move(decision, state.order.indexOf(decision) + step));
    return button;
  };
  const handle = element("span", { className: "handle", "aria-hidden": "true" }, "⠿");
  const card = element("li", { tabIndex: -1, "data-decision": name },
    handle, element("span", { className: "place" }),
    element("span", { className: "swatch", style: `background: ${color}` }),
    element("span", { className: "title" }, title(decision)),
    element("span", { className: "credit" }), element("span", { className: "papers" }),
    element("span", { className: "moves" }, by(-1, "↑", "earlier"), by(1, "↓", "later")));
  handle.addEventListener("pointerdown", (event) => drag(event, card, decision, handle));
  return card;
}

/** Follow the pointer: the card takes the place that the pointer is over. */
function drag(event, card, decision, handle) {
  event.preventDefault();
  handle.setPointerCapture(event.pointerId);
  card.classList.add("dragged");
  const follow = ({ clientY }) => {
    const over = cards().filter((other) => other !== card).filter((other) => {
      const { top, height } = other.getBoundingClientRect();
      return clientY > top + height / 2;
    });
    move(decision, over.length);
  };
  const drop = () => {
    card.classList.remove("dragged");
    handle.removeEventListener("pointermove", follow);
  };
  handle.addEventListener("pointermove", follow);
  handle.addEventListener("pointerup", drop, { once: true });
  handle.addEventListener("pointercancel", drop, { once: true });
}

/** Arrow keys go from card to card; with Shift, they take the card along. */
function onKey(event) {
  const card = event.target.closest("li");
  const far = names.length;
  const by = { ArrowDown: 1, ArrowUp: -1, Home: -far, End: far }[event.key];
  if (!card || !by) return;
  event.preventDefault();
  const place = cards().indexOf(card);
  if (event.shiftKey) move(names.indexOf(card.dataset.decision), place + by);
  const next = event.shiftKey ? card : cards()[Math.min(Math.max(place + by, 0), far - 1)];
  focusOn(next);
}

function focusOn(card) {
  for (const other of cards()) other.tabIndex = other === card ? 0 : -1;
  card.focus();
}

/** The order that the address names, or else the paper's, and why. */
function readAddress() {
  const text = location.hash.slice(1);
  const order = numbersOf(text ? text.replaceAll("%2C", ",").split(",") : data.orders.paper);
  const whole = String([...order].sort((a, b) => a - b)) === String(names.map((_, place) => place));
  if (whole) show(order);
  else show(numbersOf(data.orders.paper), "The address does not name each decision once: this is the paper's order.");
}

function begin() {
  const words = { paper: "paper's", best: "best", worst: "worst" };
  for (const [name, order] of Object.entries(data.orders)) {
    const button = element("button", { type: "button", value: name }, words[name]);
    button.addEventListener("click", () => show(numbersOf(order)));
    byId("orders").append(button);
  }
  byId("cards").append(...state.order.map(makeCard));
  cards()[0].tabIndex = 0;
  byId("cards").addEventListener("keydown", onKey);
  describe();
  readAddress();
  addEventListener("hashchange", readAddress);
  onNewWidth(() => drawChart(model.curve(state.order)));
}

/** Legend and notes: where the numbers come from. */
function describe() {
  const items = [["circle solid", "measured"], ["circle", "predicted, with its 95 % interval"],
    ["square", "the paper's order"]];
  for (const [kind, text] of items) {
    byId("legend").append(element("li", {}, element("span", { className: `key ${kind}` }), text));
  }
  const { name, description } = data.study;
  const runs = Object.values(data.networks).map(([, trained]) => trained);
  const kind = data.interactions ? "with interactions of two" :
    "without interactions, for which there are too few runs: it credits a decision alike in every order";
  byId("source").textContent = `The study “${name}” (${description}): ${runs.filter(Boolean).length} of ` +
    `${runs.length} networks are measured, the others predicted by a linear model ${kind}.`;
  byId("chart-note").textContent = "A measured point has the luck of its runs, mostly one: its interval " +
    `would be about ± ${(2 * data.sd).toFixed(1)} points. Best and worst: the orders in which the model ` +
    "expects the highest and the lowest accuracy on average along the way; all end at the same network.";
}

begin();
