// Search as one types, the slider's number, and a job's progress. Every page can be read and used without it.
"use strict";

const element = (name, text, attributes = {}) => {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

/** Offer the taxa found for what is typed into `input`; `choice` makes of a hit what can be chosen. */
function offer(input, list, status, choice) {
  let last = "", timer = 0, asked = null;
  const close = () => { list.hidden = true; };
  const show = taxa => {
    list.replaceChildren(...taxa.map(hit => {
      const item = document.createElement("li");
      item.append(choice(hit, close));
      return item;
    }));
    list.hidden = taxa.length === 0;
    status.textContent = taxa.length === 0 ? "No taxon found" :
      taxa.length === 1 ? "1 taxon found" : `${taxa.length} taxa found`;
  };
  const look = async () => {
    const text = input.value.trim();
    if (text === last) return;
    last = text;
    asked?.abort();
    if (text === "") { show([]); status.textContent = ""; return; }
    asked = new AbortController();
    try {
      const answer = await fetch(`/find.json?q=${encodeURIComponent(text)}`, { signal: asked.signal });
      if (answer.ok) show((await answer.json()).taxa);
    } catch (error) {
      if (error.name !== "AbortError") status.textContent = "The server does not answer";
    }
  };
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(look, 120); });
  input.addEventListener("focus", () => { if (list.childElementCount > 0) list.hidden = false; });
  const move = (event, from) => {
    const choices = [...list.querySelectorAll("a, button")], at = choices.indexOf(from);
    if (event.key === "Escape") { close(); input.focus(); }
    else if (event.key === "ArrowDown" && choices.length) choices[Math.min(at + 1, choices.length - 1)].focus();
    else if (event.key === "ArrowUp" && at >= 0) (at === 0 ? input : choices[at - 1]).focus();
    else return;
    event.preventDefault();
  };
  input.addEventListener("keydown", event => move(event, null));
  list.addEventListener("keydown", event => move(event, document.activeElement));
  document.addEventListener("click", event => {
    if (!list.contains(event.target) && event.target !== input) close();
  });
}

const words = hit => [hit.found, hit.how, hit.rank, hit.above].filter(Boolean).join(" · ");

const query = document.getElementById("q");
offer(query, document.getElementById("hits"), document.getElementById("found"), hit => {
  const link = element("a", hit.label, { href: hit.href });
  link.append(element("small", words(hit)));
  return link;
});

const towards = document.getElementById("towards-name");
if (towards) {
  for (const part of document.querySelectorAll(".mix")) part.hidden = false;
  const filled = document.getElementById(towards.dataset.fills), help = document.getElementById("towards-help");
  offer(towards, document.getElementById("towards-hits"), help, (hit, close) => {
    const button = element("button", hit.label, { type: "button" });
    button.append(element("small", words(hit)));
    button.addEventListener("click", () => {
      towards.value = hit.label;
      filled.value = hit.id;
      help.textContent = `Mixed with ${hit.label}`;
      close();
      towards.focus();
      close();
    });
    return button;
  });
  towards.addEventListener("input", () => { filled.value = ""; });
  towards.form.addEventListener("submit", event => {
    if (towards.value.trim() && !filled.value) {
      event.preventDefault();
      help.textContent = "Choose one of the names that are offered, or empty the field";
      towards.focus();
    }
  });
  const slider = document.getElementById("fraction"), output = document.querySelector("output[for=fraction]");
  const say = () => { output.textContent = `${Math.round(100 * slider.value)} %`; };
  slider.addEventListener("input", say);
  say();
}

const job = document.getElementById("job");
if (job && ["waiting", "drawing"].includes(job.dataset.state)) {
  const number = job.dataset.job, size = job.dataset.size;
  const bar = document.getElementById("bar"), status = document.getElementById("words");
  const pictures = document.getElementById("pictures");
  const shown = new Set([...pictures.querySelectorAll("a")].map(link => link.getAttribute("href")));
  let spoken = "";
  const add = id => {
    const address = `/pictures/${id}`;
    if (shown.has(address)) return;
    shown.add(address);
    const figure = element("figure", "", { class: "picture" }), link = element("a", "", { href: address });
    link.append(element("img", "", { src: `${address}.png`, width: size, height: size,
      alt: `Synthetic picture ${shown.size} of ${job.dataset.title}` }));
    figure.append(link);
    pictures.append(figure);
  };
  const source = new EventSource(`/jobs/${number}/events`);
  source.addEventListener("message", event => {
    const told = JSON.parse(event.data);
    bar.value = told.fraction;
    told.pictures.forEach(add);
    // A screen reader would read every second anew: it is told of a new state, a new place and a new picture.
    const now = `${told.state} ${told.place} ${told.pictures.length}`;
    status.setAttribute("aria-live", now === spoken ? "off" : "polite");
    spoken = now;
    status.textContent = told.words;
    if (!["waiting", "drawing"].includes(told.state)) {
      source.close();
      location.reload();
    }
  });
  source.addEventListener("error", () => { status.textContent = "The server does not answer; trying again."; });
}
