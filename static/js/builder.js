// The builder's form is morphed by each change; then its checks are asked for.
{
  document.addEventListener("htmx:after:swap", (event) => {
    const target = event.detail.ctx.target;
    if (target?.id === "builder") {
      // A morph changes attributes, which what was chosen by hand follows no more.
      for (const option of target.querySelectorAll("option")) option.selected = option.hasAttribute("selected");
      for (const input of target.querySelectorAll("[type=radio], [type=checkbox]")) input.checked = input.hasAttribute("checked");
      document.body.dispatchEvent(new Event("draft-ready"));
    }
    if (target?.id === "found") document.getElementById("next-step").replaceChildren();
  });
}
