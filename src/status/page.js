"use strict";
(() => {
  const pods = document.getElementById("pods");
  const summary = document.getElementById("summary");
  const live = document.getElementById("live");
  const filter = document.getElementById("filter");

  const say = (state, words) => {
    if (live.textContent === words) return;
    live.className = state;
    live.textContent = words;
  };

  // Moments as they look from now.
  const ago = (then) => {
    const seconds = Math.round((Date.now() - then) / 1000);
    const size = Math.abs(seconds);
    const words =
      size < 90 ? `${size} s` :
      size < 5400 ? `${Math.round(size / 60)} min` :
      size < 129600 ? `${Math.round(size / 3600)} h` :
      `${Math.round(size / 86400)} d`;
    return seconds >= 0 ? `${words} ago` : `in ${words}`;
  };
  const word = (root) => {
    for (const time of root.querySelectorAll("time")) {
      const then = new Date(time.dateTime);
      if (!time.title) time.title = then.toString();
      const words = time.classList.contains("ago") ? ago(then) : then.toLocaleTimeString();
      if (time.textContent !== words) time.textContent = words;
    }
  };

  const sift = () => {
    const wanted = filter.value.trim().toLowerCase();
    for (const pod of pods.children) {
      const words = [...pod.querySelectorAll("h2, h3")].map((each) => each.textContent).join(" ");
      pod.hidden = !words.toLowerCase().includes(wanted);
    }
  };

  // What is worth a look when it changes; results of probes come all the time.
  const gist = (pod) =>
    [...pod.querySelectorAll(".badge, summary")].map((each) => each.textContent).join(" ");

  // Puts a new picture of a pod in place of the old one: what was open stays open, and the
  // focus stays where it was.
  const replace = (old, fresh) => {
    for (const details of old.querySelectorAll("details[open]")) {
      for (const same of fresh.querySelectorAll("details")) {
        if (same.dataset.key === details.dataset.key) same.open = true;
      }
    }
    const focused = document.activeElement;
    const held = old.contains(focused) ? focused.closest("details") : null;
    old.replaceWith(fresh);
    if (!held) return;
    for (const same of fresh.querySelectorAll("details")) {
      if (same.dataset.key === held.dataset.key) same.querySelector("summary").focus();
    }
  };

  // By key, as haled sent it.
  const seen = new Map();
  let first = true;

  const take = (update) => {
    const known = new Map([...pods.children].map((pod) => [pod.dataset.key, pod]));
    for (const [key, html] of Object.entries(update.changed)) {
      if (seen.get(key) === html) continue;
      seen.set(key, html);
      const template = document.createElement("template");
      // Made and escaped by haled.
      template.innerHTML = html;
      const fresh = template.content.querySelector("article");
      const old = known.get(key);
      word(fresh);
      fresh.classList.toggle("fresh", !first && (!old || gist(old) !== gist(fresh)));
      if (old) replace(old, fresh);
      known.set(key, fresh);
    }
    const order = new Set(update.order);
    for (const [key, pod] of known) {
      if (order.has(key)) continue;
      seen.delete(key);
      pod.remove();
    }
    let at = 0;
    for (const key of update.order) {
      const pod = known.get(key);
      if (!pod) continue;
      if (pods.children[at] !== pod) pods.insertBefore(pod, pods.children[at] || null);
      at += 1;
    }
    // Without the white space between, so that none looks like none.
    if (at === 0) pods.replaceChildren();
    if (summary.innerHTML !== update.summary) summary.innerHTML = update.summary;
    first = false;
    sift();
  };

  const source = new EventSource("events");
  source.addEventListener("open", () => say("on", "Live"));
  source.addEventListener("error", () => say("off", "No connection to haled; trying again"));
  source.addEventListener("pods", (event) => take(JSON.parse(event.data)));

  document.getElementById("search").hidden = false;
  filter.addEventListener("input", sift);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== filter) {
      event.preventDefault();
      filter.focus();
    } else if (event.key === "Escape" && document.activeElement === filter) {
      filter.value = "";
      sift();
    }
  });
  word(document);
  setInterval(() => word(document), 5000);
})();
