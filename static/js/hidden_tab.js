// A hidden tab polls for nothing; it catches up when it is seen again.
{
  document.addEventListener("htmx:before:request", (event) => {
    if (document.hidden && event.target.id !== "builder") event.preventDefault();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) document.dispatchEvent(new Event("visible-again"));
  });
}
