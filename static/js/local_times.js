// Shows instants, which pages have in UTC, in the reader's time zone.
{
  const DIGITS = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" };

  const showLocalTimes = () => {
    for (const time of document.querySelectorAll("time[data-local]")) {
      const instant = new Date(time.dateTime);
      if (Number.isNaN(instant.valueOf())) continue;
      // The Swedish locale formats dates as ISO 8601.
      time.textContent = instant.toLocaleString("sv-SE", { ...DIGITS, timeZoneName: "short" });
      time.removeAttribute("data-local");
    }
  };

  document.addEventListener("htmx:after:swap", showLocalTimes);
  showLocalTimes();
}
