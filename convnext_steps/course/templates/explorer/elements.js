"use strict";

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

const signed = (value) => (value <= -0.005 ? "−" : "+") + Math.abs(value).toFixed(2);
const percent = (value) => (value === null ? "–" : `${value.toFixed(2)} %`);
const giga = (count) => `${(count / 1e9).toFixed(2)} G`;
const mega = (count) => `${(count / 1e6).toFixed(2)} M`;
const spread = (value, margin) => (margin === null ? "" : ` ± ${margin.toFixed(2)}`);
