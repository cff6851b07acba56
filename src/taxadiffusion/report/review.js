"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const judged = restored();
  let place = Math.max(0, data.items.findIndex((item) => !(item.file in judged)));
  let failed = new Set();

  // What another page of the same pictures, or an earlier visit, left in this browser; only what can be a judgement.
  function restored() {
    try {
      const kept = JSON.parse(localStorage.getItem(data.key) || "{}");
      return Object.fromEntries(data.items.filter((item) => isJudgement(kept[item.file]))
        .map((item) => [item.file, kept[item.file]]));
    } catch { return {}; }
  }

  function isJudgement(one) {
    if (!one || !["pass", "fail", "undecided"].includes(one.verdict)) return false;
    return data.pairs ? ["generated", "photograph", ""].includes(one.chosen) : Array.isArray(one.failed);
  }

  function keep() {
    try { localStorage.setItem(data.key, JSON.stringify(judged)); }
    catch { return " This browser keeps nothing: save the table before you leave."; }
    return "";
  }

  function show(words = "") {
    const item = data.items[place];
    const before = judged[item.file];
    failed = new Set(before && before.failed ? before.failed : []);
    at("taxon").textContent = item.label;
    at("lineage").textContent = item.taxon;
    const generatedLeft = !data.pairs || item.left === "generated";
    at("left").src = generatedLeft ? item.image : item.beside;
    at("left").alt = data.pairs ? `left: ${item.label}` : `generated: ${item.label}`;
    if (data.pairs) {
      at("right").src = generatedLeft ? item.beside : item.image;
      at("right").alt = `right: ${item.label}`;
    }
    mark(before);
    at("said").textContent = words;
    const number = Object.keys(judged).length;
    at("progress").textContent = `${place + 1} of ${data.items.length}; ${number} judged`;
  }

  function mark(before) {
    const list = at("features");
    list.replaceChildren();
    const add = (words, kind) => {
      const line = document.createElement("li");
      line.textContent = words;
      if (kind) line.className = kind;
      list.append(line);
    };
    if (data.pairs) {
      add(before ? { pass: "taken for the photograph", fail: "told apart", undecided: "cannot tell" }[before.verdict]
        : "which is the photograph?", before ? before.verdict : "");
      return;
    }
    data.features.forEach((name, i) => {
      const fails = failed.has(name);
      const kind = fails ? "fail" : before && before.verdict !== "undecided" ? "pass" : "";
      add(`${i + 1} ${name}${fails ? ": fails" : kind ? ": passes" : ""}`, kind);
    });
    if (before && before.verdict === "undecided") add("cannot tell", "");
  }

  function settle(judgement, words) {
    judged[data.items[place].file] = judgement;
    const warning = keep();
    if (place + 1 < data.items.length) place += 1;
    const done = Object.keys(judged).length === data.items.length;
    show(words + (done ? " All are judged: press S to save the table." : "") + warning);
  }

  function chosen(side) {
    const item = data.items[place];
    const other = item.left === "generated" ? "photograph" : "generated";
    const what = side === "left" ? item.left : other;
    settle({ chosen: what, verdict: what === "generated" ? "pass" : "fail" }, `${side} taken for the photograph.`);
  }

  function toggle(name) {
    if (!failed.delete(name)) failed.add(name);
    mark(judged[data.items[place].file]);
    at("said").textContent = `${name} ${failed.has(name) ? "fails" : "passes"}; press Enter when judged.`;
  }

  function cell(value) {
    return /[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  }

  function row(item) {
    const one = judged[item.file];
    const values = { file: item.file, sha256: item.sha256, taxon: item.taxon, verdict: one.verdict };
    if (data.pairs) Object.assign(values, { photograph: item.photograph, left: item.left, chosen: one.chosen });
    else for (const name of data.features) {
      values[name] = one.verdict === "undecided" ? "" : one.failed.includes(name) ? "fail" : "pass";
    }
    return data.columns.map((column) => cell(values[column])).join(",");
  }

  function save() {
    const rows = data.items.filter((item) => item.file in judged).map(row);
    const link = document.createElement("a");
    const text = [data.columns.join(","), ...rows].join("\r\n") + "\r\n";
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "judgements.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    at("said").textContent = `${rows.length} judgements saved as judgements.csv.`;
  }

  function move(step) {
    place = Math.min(data.items.length - 1, Math.max(0, place + step));
    show();
  }

  function next() {
    const open = data.items.findIndex((item) => !(item.file in judged));
    if (open >= 0) place = open;
    show(open >= 0 ? "" : "All are judged: press S to save the table.");
  }

  function pressed(key) {
    const number = Number.parseInt(key, 10);
    if (data.pairs && (number === 1 || number === 2)) return () => chosen(number === 1 ? "left" : "right");
    if (!data.pairs && number >= 1 && number <= data.features.length) return () => toggle(data.features[number - 1]);
    if (!data.pairs && key === "Enter") {
      const fails = [...failed];
      const words = fails.length ? `${fails.join(", ")} failed.` : "All passed.";
      return () => settle({ failed: fails, verdict: fails.length ? "fail" : "pass" }, words);
    }
    return {
      u: () => settle({ failed: [], chosen: "", verdict: "undecided" }, "Left undecided."),
      ArrowLeft: () => move(-1),
      ArrowRight: () => move(1),
      n: next,
      s: save,
    }[key.length === 1 ? key.toLowerCase() : key];
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    const act = pressed(event.key);
    if (!act) return;
    event.preventDefault();
    act();
  });
  show();
})();
