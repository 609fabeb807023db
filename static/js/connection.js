// Requests go on by themselves after a failed one; the person should know meanwhile.
{
  const connection = document.getElementById("connection");
  document.addEventListener("htmx:error", () => { connection.hidden = false; });
  document.addEventListener("htmx:response:error", () => { connection.hidden = false; });
  document.addEventListener("htmx:before:response", (event) => {
    if (event.detail.ctx.response.status < 400) connection.hidden = true;
  });
}
