// A button copies the text of the element that it names.
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
