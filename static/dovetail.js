// Enhances the task page, which works without it.

// Polls go on by themselves after a failed one; the person should know meanwhile.
const connection = document.getElementById("connection");
document.addEventListener("htmx:error", () => { connection.hidden = false; });
document.addEventListener("htmx:response:error", () => { connection.hidden = false; });
document.addEventListener("htmx:before:response", (event) => {
  if (event.detail.ctx.response.status < 400) connection.hidden = true;
});

// A hidden tab asks for nothing; it catches up when it is seen again.
document.addEventListener("htmx:before:request", (event) => {
  if (document.hidden) event.preventDefault();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) document.dispatchEvent(new Event("visible-again"));
});
