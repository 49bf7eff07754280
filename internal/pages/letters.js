"use strict";
// On a phone the filter waits until it is wanted.
for (const filter of document.querySelectorAll("details:not([data-keep])")) {
  if (matchMedia("(max-width: 44rem)").matches) filter.open = false;
}

// One box for all messages of the page, and buttons that wait until some are chosen.
for (const form of document.querySelectorAll("form.list")) {
  const boxes = [...form.querySelectorAll('input[name="letter"]')], all = form.querySelector('input[name="all"]');
  if (boxes.length === 0) continue;
  const page = document.createElement("input");
  page.type = "checkbox";
  const label = document.createElement("label");
  label.className = "choice";
  label.append(page, " this page");
  all.closest("label").before(label);
  const update = () => {
    const chosen = boxes.filter((b) => b.checked).length;
    page.checked = chosen === boxes.length;
    page.indeterminate = chosen > 0 && chosen < boxes.length;
    for (const b of form.querySelectorAll("button[name=do]")) b.disabled = chosen === 0 && !all.checked;
  };
  page.addEventListener("change", () => { for (const b of boxes) b.checked = page.checked; update(); });
  form.addEventListener("change", update);
  window.addEventListener("pageshow", update);
  update();
}
