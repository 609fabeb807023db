// Sets the tab's icon to the task's state. The title comes with the fragment.
{
  document.addEventListener("htmx:after:swap", () => {
    const icon = document.getElementById("status")?.dataset.icon;
    if (icon) document.querySelector("link[rel=icon]").href = icon;
  });
}
