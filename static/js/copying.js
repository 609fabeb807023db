// Buttons with data-copies copy the text of the element with that id.
{
  const offerCopies = () => {
    for (const button of document.querySelectorAll("[data-copies]")) button.hidden = !navigator.clipboard;
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copies]");
    if (!button) return;
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent);
    button.textContent = "Copied";
  });
  document.addEventListener("htmx:after:swap", offerCopies);
  offerCopies();
}
