// Instants are written in UTC; here they are read where the reader is.
{
  const DIGITS = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" };

  const showLocalTimes = () => {
    for (const time of document.querySelectorAll("time[data-local]")) {
      const instant = new Date(time.dateTime);
      if (Number.isNaN(instant.valueOf())) continue;
      // Sweden writes dates as ISO 8601 does.
      time.textContent = instant.toLocaleString("sv-SE", { ...DIGITS, timeZoneName: "short" });
      time.removeAttribute("data-local");
    }
  };

  document.addEventListener("htmx:after:swap", showLocalTimes);
  showLocalTimes();
}
