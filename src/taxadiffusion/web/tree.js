// The tree as an icicle; what it shows stands below it as a list, for who cannot see or use it.
"use strict";

(async () => {
  const answer = await fetch("/tree.json");
  if (!answer.ok) return;
  const taxa = await answer.json();
  const plot = document.getElementById("tree"), pointed = document.getElementById("pointed");
  document.getElementById("tree-section").hidden = false;
  const colours = getComputedStyle(document.documentElement);
  const colour = name => colours.getPropertyValue(name).trim();
  const narrow = plot.clientWidth < 520;
  const palette = ["#2f7f7b", "#b5613c", "#4d7ea8", "#8a6fa8", "#8a7a2e", "#4f7d4a"];
  await Plotly.newPlot(plot, [{
    type: "icicle",
    leaf: { opacity: 1 },
    root: { color: "#4b5d67" },
    ids: taxa.ids, labels: taxa.labels, parents: taxa.parents, values: taxa.counts, customdata: taxa.ranks,
    branchvalues: "total",
    tiling: { orientation: narrow ? "v" : "h" },
    maxdepth: narrow ? 4 : 5,
    hovertemplate: `%{customdata} %{label}<br>%{value} ${taxa.unit}<extra></extra>`,
    textfont: { color: "#ffffff" },
    pathbar: { visible: true },
  }], {
    margin: { t: 24, l: 0, r: 0, b: 0 },
    paper_bgcolor: colour("--paper"), iciclecolorway: palette,
    font: { family: "system-ui, sans-serif", size: 14, color: colour("--ink") },
  }, { displayModeBar: false, responsive: true });
  const show = event => {
    const at = taxa.ids.indexOf(String(event.points[0].id));
    if (at < 0) return;
    const name = new DOMParser().parseFromString(taxa.labels[at], "text/html").body.textContent;
    const parts = [];
    if (taxa.thumbnails[at]) {
      const image = document.createElement("img");
      image.src = taxa.thumbnails[at];
      image.alt = taxa.thumbnails[at].startsWith("/photographs") ? `Photograph of ${name}` : `Synthetic picture of ${name}`;
      parts.push(image);
    }
    const link = document.createElement("a");
    link.href = at === 0 ? "/" : `/taxa/${taxa.ids[at]}`;
    link.textContent = `Open ${name}`;
    const words = document.createElement("small");
    words.textContent = ` ${taxa.ranks[at]}, ${taxa.counts[at].toLocaleString("en")} ${taxa.unit}`;
    parts.push(link, words);
    pointed.replaceChildren(...parts);
  };
  plot.on("plotly_hover", show);
  plot.on("plotly_click", show);
})();
