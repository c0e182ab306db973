// Two things the pages work without: Airflow's own choice of light or dark, and leaving Airflow's frame.
"use strict";
(() => {
  const here = document.currentScript.dataset;
  const root = document.documentElement;

  // Airflow keeps the choice under "theme": light, dark or system.
  const paint = () => {
    let theme = null;
    try {
      theme = localStorage.getItem("theme");
    } catch {
      // Storage may be switched off; the system's choice holds then.
    }
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  paint();
  window.addEventListener("storage", paint);

  // Airflow's frame forbids navigating what is around it, but shares its origin: Airflow's own page does it.
  const airflow = () => {
    try {
      return window.parent !== window && window.parent.document.getElementById("root") ? window.parent : null;
    } catch {
      return null;
    }
  };
  const go = (outer, address) => {
    outer.history.pushState({}, "", address);
    outer.dispatchEvent(new outer.PopStateEvent("popstate", { state: {} }));
  };

  const restore = (link) => {
    const outer = airflow();
    if (outer === null) {
      // Airflow with this page in its frame, which then comes back here.
      const page = `${here.airflow}/plugin/${here.frame}${location.pathname}`;
      location.assign(`${page}?restore=${encodeURIComponent(link.dataset.restore)}`);
      return;
    }
    const script = outer.document.createElement("script");
    script.src = `${here.root}/static/fill_form.js`;
    script.dataset.values = link.dataset.values;
    // Only then, because navigating removes the frame and all that runs in it.
    script.addEventListener("load", () => go(outer, link.getAttribute("href")));
    script.addEventListener("error", () => location.assign(link.href));
    outer.document.head.append(script);
  };

  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const link = event.target.closest("a[data-restore], a[data-top]");
    if (link === null) return;
    const outer = airflow();
    if (link.dataset.restore !== undefined) {
      event.preventDefault();
      restore(link);
    } else if (outer !== null) {
      event.preventDefault();
      go(outer, link.getAttribute("href"));
    }
  });

  document.addEventListener("DOMContentLoaded", () => {
    const wanted = new URLSearchParams(location.search).get("restore");
    if (wanted === null || airflow() === null) return;
    const links = [...document.querySelectorAll("a[data-restore]")];
    const link = links.find((candidate) => candidate.dataset.restore === wanted);
    if (link) restore(link);
  });
})();
