"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

/** An HTML element with properties (or attributes, where there is a dash) and children. */
function element(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") node.setAttribute(key, value);
    else node[key] = value;
  }
  node.append(...children);
  return node;
}

/** An SVG element with attributes and children. */
function shape(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** Draw the chart again whenever it has another width. */
function onNewWidth(draw) {
  let width = byId("chart").clientWidth;
  new ResizeObserver(() => {
    if (byId("chart").clientWidth === width) return;
    width = byId("chart").clientWidth;
    draw();
  }).observe(byId("chart"));
}

/** A linear scale over the values, with a margin, and round ticks about 40 pixels apart. */
function scale(values, [from, to]) {
  const low = Math.min(...values), high = Math.max(...values);
  const margin = Math.max(0.06 * (high - low), 0.05);
  const [start, end] = [low - margin, high + margin];
  const at = (value) => from + ((value - start) / (end - start)) * (to - from);
  const wished = (end - start) / Math.max(3, Math.abs(to - from) / 40);
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50].find((size) => size >= wished);
  const ticks = [];
  for (let i = Math.ceil(start / step); i * step <= end; i++) ticks.push(i * step);
  return { at, ticks, digits: step < 1 ? 1 : 0 };
}

const signed = (value) => (value <= -0.005 ? "−" : "+") + Math.abs(value).toFixed(2);
const percent = (value) => (value === null ? "–" : `${value.toFixed(2)} %`);
const giga = (count) => `${(count / 1e9).toFixed(2)} G`;
const mega = (count) => `${(count / 1e6).toFixed(2)} M`;
const spread = (value, margin) => (margin === null ? "" : ` ± ${margin.toFixed(2)}`);
