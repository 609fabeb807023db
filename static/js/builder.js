// Each change morphs the builder's form; then the page requests its checks.
{
  document.addEventListener("htmx:after:swap", (event) => {
    const target = event.detail.ctx.target;
    if (target?.id === "builder") {
      // A morph changes attributes only. Controls that the user has touched no longer follow them.
      for (const option of target.querySelectorAll("option")) option.selected = option.hasAttribute("selected");
      for (const input of target.querySelectorAll("[type=radio], [type=checkbox]")) input.checked = input.hasAttribute("checked");
      document.body.dispatchEvent(new Event("draft-ready"));
    }
    if (target?.id === "found") document.getElementById("next-step").replaceChildren();
  });
}
