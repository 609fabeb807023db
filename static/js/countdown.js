// Counts down to the expiry of a result, in seconds.
{
  const countDown = () => {
    for (const time of document.querySelectorAll("[data-until]")) {
      const seconds = Math.round((new Date(time.dateTime) - Date.now()) / 1000);
      const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
      const clock = parts.map((part, place) => (place ? String(part).padStart(2, "0") : part)).join(":");
      time.textContent = seconds > 0 ? `in ${clock.replace(/^0:/, "")}` : "expired";
    }
  };

  if (document.querySelector("[data-until]")) {
    countDown();
    setInterval(countDown, 1000);
  }
}
