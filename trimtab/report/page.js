// Draws the charts, sorts and filters the candidates. All text goes in as text, never as markup.
"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const views = {};

  // Okabe and Ito's colours, which tell apart without red and green; lighter ones on dark.
  const palettes = {
    light: { range: ["#d55e00", "#0072b2", "#767676", "#111111"], pair: ["#767676", "#0072b2"] },
    dark: { range: ["#f5a742", "#56b4e9", "#9a9a9a", "#ffffff"], pair: ["#9a9a9a", "#56b4e9"] },
  };

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    const palette = dark.matches ? palettes.dark : palettes.light;
    const text = of("--text"), soft = of("--soft"), line = of("--line");
    return {
      palette,
      config: {
        background: null,
        font: getComputedStyle(document.body).fontFamily,
        view: { stroke: line },
        axis: {
          labelColor: text, titleColor: soft, gridColor: line, domainColor: soft, tickColor: soft,
          gridOpacity: 0.5, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal",
        },
        legend: { labelColor: text, titleColor: soft, labelFontSize: 12 },
        rule: { color: soft },
        line: { color: soft },
        bar: { color: palette.pair[1] },
        tick: { color: palette.range[0] },
        range: { category: palette.range },
      },
    };
  }

  function themed(spec, name) {
    const { palette, config } = colours();
    const made = { ...structuredClone(spec), config };
    if (name !== "frontier") config.range.category = palette.pair;
    return made;
  }

  async function draw(name) {
    const place = document.getElementById(`chart-${name}`);
    if (!place) return;
    if (views[name]) views[name].finalize();
    // `ast` reads expressions instead of compiling them, which the content policy forbids.
    views[name] = await vegaEmbed(place, themed(specs[name], name), {
      actions: false, ast: true, defaultStyle: false, renderer: "svg",
      logLevel: 1, // a filter may leave a layer empty, which needs no log entry
      tooltip: { disableDefaultStyle: true },
    });
    place.dataset.drawn = dark.matches ? "dark" : "light";
  }

  async function drawAll() {
    for (const name of Object.keys(specs)) {
      try {
        await draw(name);
      } catch (error) {
        console.error(`chart ${name}:`, error);
      }
    }
    filter();
  }

  const table = document.getElementById("candidate-table");
  const rows = Array.from(table.tBodies[0].rows);
  const text = document.getElementById("filter");
  const measured = document.getElementById("only-measured");
  const frontier = document.getElementById("only-frontier");

  function shown(name, isMeasured, isFrontier) {
    const wanted = text.value.trim().toLowerCase();
    return name.toLowerCase().includes(wanted)
      && (!measured.checked || isMeasured) && (!frontier.checked || isFrontier);
  }

  function filter() {
    let count = 0;
    for (const row of rows) {
      const data = row.dataset;
      // The original stays: everything is compared with it.
      const keep = row.classList.contains("original")
        || shown(data.name, "measured" in data, "frontier" in data);
      row.hidden = !keep;
      count += keep;
    }
    document.getElementById("count").textContent = `${count} of ${rows.length} shown`;
    const names = new Set(rows.filter((r) => !r.hidden).map((r) => r.dataset.name));
    if (views.frontier) {
      const all = specs.frontier.data.values;
      const view = views.frontier.view;
      view.data("rows", all.filter((r) => r.kind === "original" || names.has(r.name))).runAsync();
    }
  }

  function sortBy(index, button) {
    const head = button.closest("th");
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const numeric = head.classList.contains("number");
    const key = (row) => row.cells[index].dataset.value;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // what is not known comes last
      const by = numeric ? Number(x) - Number(y) : x.localeCompare(y);
      return up ? by : -by;
    };
    table.tBodies[0].append(...rows.slice().sort(order));
  }

  Array.from(table.tHead.rows[0].cells).forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.title = `Sort by ${head.textContent}`;
    button.addEventListener("click", () => sortBy(index, button));
    head.replaceChildren(button);
  });

  const form = document.getElementById("filters");
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", filter);
  dark.addEventListener("change", drawAll);
  drawAll();
})();
