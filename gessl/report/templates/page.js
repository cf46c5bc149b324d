"use strict";
// Click on a number: its id stays visible, is selected, and is copied where the browser allows it.
document.addEventListener("click", (event) => {
  const number = event.target.closest("button.number");
  if (!number) return;
  document.querySelectorAll("td.picked").forEach((cell) => cell.classList.remove("picked"));
  const cell = number.closest("td");
  cell.classList.add("picked");
  getSelection().selectAllChildren(cell.querySelector(".id"));
  if (navigator.clipboard) navigator.clipboard.writeText(number.dataset.id).catch(() => {});
});
document.getElementById("show-ids").addEventListener("change", (event) => {
  document.body.classList.toggle("ids", event.target.checked);
});
