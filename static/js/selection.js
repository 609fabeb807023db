// The buttons for selected tasks say how many those are, and offer only what can be done to so many.
{
  const countSelected = () => {
    const selected = document.querySelectorAll("input[name=task]:checked").length;
    for (const place of document.querySelectorAll("[data-count-of=task]")) place.textContent = selected ? `${selected} selected. ` : "";
    for (const button of document.querySelectorAll("[data-needs]")) button.disabled = selected !== Number(button.dataset.needs);
  };

  document.addEventListener("change", (event) => { if (event.target.name === "task") countSelected(); });
  document.addEventListener("htmx:after:swap", countSelected);
  window.addEventListener("pageshow", countSelected);
}
