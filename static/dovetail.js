// Enhances the pages, which work without it.

// Requests go on by themselves after a failed one; the person should know meanwhile.
const connection = document.getElementById("connection");
document.addEventListener("htmx:error", () => { connection.hidden = false; });
document.addEventListener("htmx:response:error", () => { connection.hidden = false; });
document.addEventListener("htmx:before:response", (event) => {
  if (event.detail.ctx.response.status < 400) connection.hidden = true;
});

// A hidden tab polls for nothing; it catches up when it is seen again.
document.addEventListener("htmx:before:request", (event) => {
  if (document.hidden && event.target.id !== "builder") event.preventDefault();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) document.dispatchEvent(new Event("visible-again"));
});

document.addEventListener("htmx:after:swap", (event) => {
  const target = event.detail.ctx.target;
  if (target?.id === "builder") {
    // A morph changes attributes, which what was chosen by hand follows no more.
    for (const option of target.querySelectorAll("option")) option.selected = option.hasAttribute("selected");
    for (const input of target.querySelectorAll("[type=radio], [type=checkbox]")) input.checked = input.hasAttribute("checked");
    document.body.dispatchEvent(new Event("draft-ready"));
  }
  if (target?.id === "found") document.getElementById("next-step").replaceChildren();
  showState();
  offerCopies();
  localTimes();
  countSelected();
});

// The tab's icon says the state; its title comes with the fragment.
function showState() {
  const icon = document.getElementById("status")?.dataset.icon;
  if (icon) document.querySelector("link[rel=icon]").href = icon;
}

function offerCopies() {
  for (const button of document.querySelectorAll("[data-copies]")) button.hidden = !navigator.clipboard;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copies]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent);
  button.textContent = "Copied";
});

offerCopies();

// Instants are written in UTC; here they are read where the reader is.
const DIGITS = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" };
function localTimes() {
  for (const time of document.querySelectorAll("time[data-local]")) {
    const instant = new Date(time.dateTime);
    if (Number.isNaN(instant.valueOf())) continue;
    // Sweden writes dates as ISO 8601 does.
    time.textContent = instant.toLocaleString("sv-SE", { ...DIGITS, timeZoneName: "short" });
    time.removeAttribute("data-local");
  }
}
localTimes();

// What is done to several tasks says how many, and offers only what can be done to so many.
function countSelected() {
  const selected = document.querySelectorAll("input[name=task]:checked").length;
  for (const place of document.querySelectorAll("[data-count-of=task]")) place.textContent = selected ? `${selected} selected. ` : "";
  for (const button of document.querySelectorAll("[data-needs]")) button.disabled = selected !== Number(button.dataset.needs);
}
document.addEventListener("change", (event) => { if (event.target.name === "task") countSelected(); });
window.addEventListener("pageshow", countSelected);

// An address that is sent on says only what was asked.
document.addEventListener("formdata", (event) => {
  if (event.target.method !== "get") return;
  const where = event.formData.getAll("where"), is = event.formData.getAll("is"), value = event.formData.getAll("value");
  for (const name of new Set(event.formData.keys())) {
    if (event.formData.getAll(name).every((text) => text === "")) event.formData.delete(name);
  }
  if (!where.length) return;
  for (const name of ["where", "is", "value"]) event.formData.delete(name);
  where.forEach((column, place) => {
    if (!column) return;
    event.formData.append("where", column);
    event.formData.append("is", is[place]);
    event.formData.append("value", value[place]);
  });
});

// What is left of a result, to the second.
function countDown() {
  for (const time of document.querySelectorAll("[data-until]")) {
    const seconds = Math.round((new Date(time.dateTime) - Date.now()) / 1000);
    const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    const clock = parts.map((part, place) => (place ? String(part).padStart(2, "0") : part)).join(":");
    time.textContent = seconds > 0 ? `in ${clock.replace(/^0:/, "")}` : "expired";
  }
}
if (document.querySelector("[data-until]")) {
  countDown();
  setInterval(countDown, 1000);
}
