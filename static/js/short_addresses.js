// Leaves empty fields out of the URLs of search forms, to make them short enough to share.
{
  document.addEventListener("formdata", (event) => {
    if (event.target.method !== "get") return;
    const where = event.formData.getAll("where"), is = event.formData.getAll("is"), value = event.formData.getAll("value");
    for (const name of new Set(event.formData.keys())) {
      if (event.formData.getAll(name).every((text) => text === "")) event.formData.delete(name);
    }
    if (!where.length) return;
    for (const name of ["where", "is", "value"]) event.formData.delete(name);
    where.forEach((column, place) => {
      if (!column) return;
      event.formData.append("where", column);
      event.formData.append("is", is[place]);
      event.formData.append("value", value[place]);
    });
  });
}
