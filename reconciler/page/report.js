// Filters rows by what is typed; the text is in the URL, so that a link leads to the same view.
"use strict";
const box = document.getElementById("filter");
const rows = [...document.querySelectorAll("[data-row]")];
const texts = rows.map((row) => row.textContent.toLowerCase());

function filter() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  rows.forEach((row, number) => {
    row.hidden = !words.every((word) => texts[number].includes(word));
  });
}

function open() {
  const name = location.hash.slice(1);
  if (name.startsWith("filter=")) {
    box.value = decodeURIComponent(name.slice("filter=".length));
    filter();
  } else if (name) {
    const target = document.getElementById(name);
    if (target && target.tagName === "DETAILS") target.open = true;
  }
}

box.addEventListener("input", () => {
  history.replaceState(null, "", box.value ? "#filter=" + encodeURIComponent(box.value) : "#");
  filter();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== box) {
    event.preventDefault();
    box.focus();
  } else if (event.key === "Escape" && document.activeElement === box) {
    box.value = "";
    box.dispatchEvent(new Event("input"));
    box.blur();
  }
});
addEventListener("hashchange", open);
open();
