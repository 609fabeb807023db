// Hidden tabs do not poll. They catch up when they become visible.
{
  document.addEventListener("htmx:before:request", (event) => {
    if (document.hidden && event.target.id !== "builder") event.preventDefault();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) document.dispatchEvent(new Event("visible-again"));
  });
}
