// Polling continues after a failed request; a banner says so until the next success.
{
  const connection = document.getElementById("connection");
  document.addEventListener("htmx:error", () => { connection.hidden = false; });
  document.addEventListener("htmx:response:error", () => { connection.hidden = false; });
  document.addEventListener("htmx:before:response", (event) => {
    if (event.detail.ctx.response.status < 400) connection.hidden = true;
  });
}
