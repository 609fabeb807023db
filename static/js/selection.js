// Shows the number of selected tasks and enables the buttons that fit this number.
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
