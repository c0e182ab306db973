// Runs in Airflow's own page: opens its trigger form and fills it in. Airflow 3.3 takes no values by address.
// What cannot be filled in is said, with what to enter: a form that is only half filled is never left unmarked.
"use strict";
(() => {
  const script = document.currentScript;
  const values = JSON.parse(script.dataset.values);
  const patienceMs = Number(script.dataset.patience ?? 20000);
  script.remove();

  const until = (find) =>
    new Promise((resolve, reject) => {
      const started = Date.now();
      const look = () => {
        const found = find();
        if (found) resolve(found);
        else if (Date.now() - started > patienceMs) reject(new Error("not found"));
        else setTimeout(look, 60);
      };
      look();
    });

  const written = (value) => (Array.isArray(value) ? value.join("\n") : String(value));
  const enter = (field, text) => {
    const kind = field.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
    // The form listens to what a person types: set the value beside its back, then say that it was typed.
    Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(field, text);
    field.dispatchEvent(new Event("input", { bubbles: true }));
    field.dispatchEvent(new Event("change", { bubbles: true }));
    field.dispatchEvent(new FocusEvent("focusout", { bubbles: true }));
  };
  const field = (name) => document.querySelector(`[role=dialog] [name="element_${name}"]`);

  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  // The form's sections are closed at first: open the one that was filled in. It takes clicks while in focus.
  const show = async (found) => {
    const section = found.closest("[data-part=item]")?.querySelector("[data-part=item-trigger]");
    if (section?.getAttribute("aria-expanded") !== "false") return;
    section.focus();
    await pause(50);
    section.click();
  };

  const tell = () => {
    const note = document.createElement("p");
    note.setAttribute("role", "alert");
    note.style.cssText =
      "position:fixed;z-index:99999;left:16px;right:16px;bottom:16px;margin:0;padding:12px 16px;" +
      "background:#a3161c;color:#fff;border-radius:6px;font:14px/1.5 sans-serif;overflow-wrap:anywhere";
    note.textContent =
      "Airflow’s trigger form could not be filled in. Enter yourself: " + JSON.stringify(values);
    note.addEventListener("click", () => note.remove());
    document.body.append(note);
  };

  const fill = async () => {
    const button = await until(() => document.querySelector('[data-testid="trigger-dag-button"]:not([disabled])'));
    button.click();
    for (const [name, value] of Object.entries(values)) {
      const found = await until(() => field(name));
      if (found.value !== written(value)) enter(found, written(value));
    }
    // React may draw the form again with its defaults: only a value that stays has been taken.
    await pause(400);
    for (const [name, value] of Object.entries(values)) {
      if (field(name)?.value !== written(value)) enter(await until(() => field(name)), written(value));
    }
    await until(() => Object.entries(values).every(([name, value]) => field(name)?.value === written(value)));
    const [first] = Object.keys(values);
    if (first !== undefined) await show(field(first));
  };
  window.addEventListener("popstate", () => fill().catch(tell), { once: true });
})();
