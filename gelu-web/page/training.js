// The page about private training: how the server's runs stand, and a recorded one.

const byId = (id) => document.getElementById(id);
const POLL = 2000;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function runOf({ model, run, members, turn, is_held, is_complete, changes }) {
  const box = element("div");
  box.append(element("h3", model));
  box.append(element("p", `${run.done} of ${run.iterations || "?"} iterations, ${run.enrolled} of ${run.clients} clients`, { class: "hint" }));
  box.append(element("progress", undefined, { max: run.iterations || 1, value: run.done, "aria-label": `Iterations of ${model}` }));
  const places = element("ul", undefined, { class: "places", "aria-label": "Clients" });
  for (let place = 0; place < run.clients; place++) {
    const member = members.find((one) => one.place === place);
    const has = turn === place ? (is_held ? ", its turn now" : ", next") : "";
    const text = `client ${place + 1}: ${member ? `${member.turns} turns${has}` : "yet to come"}`;
    places.append(element("li", text, turn === place ? { class: "turn" } : {}));
  }
  box.append(places);
  const last = changes.at(-1);
  if (is_complete) box.append(element("p", "The run is complete."));
  else if (last) {
    const when = new Date(1000 * last.at).toLocaleTimeString();
    box.append(element("p", `Last change at ${when}: ${last.kind}, client ${last.place + 1}.`, { class: "hint" }));
  }
  return box;
}

async function poll() {
  try {
    const response = await fetch("/v1/training");
    if (!response.ok) throw new Error(`it answered ${response.status}`);
    const runs = await response.json();
    byId("status").textContent = runs.length ? "" : "This server trains nothing at the moment.";
    if (runs.length) byId("live").replaceChildren(...runs.map(runOf));
  } catch (error) {
    byId("status").textContent = `The server cannot be reached: ${error.message}.`;
  }
  setTimeout(poll, POLL);
}

/** Draws the curves as wide as there is room, so that text has its size on telephones, too. */
function draw({ points }) {
  const chart = byId("curve");
  const width = Math.max(240, Math.min(640, chart.clientWidth));
  chart.setAttribute("viewBox", `0 0 ${width} 300`);
  chart.replaceChildren();
  const [left, right, top, bottom] = [44, width - 10, 12, 264];
  const most = Math.ceil(Math.max(...points.flatMap(({ train, test }) => [train, test])));
  const last = points.at(-1).epoch;
  const x = (epoch) => left + ((right - left) * epoch) / last;
  const y = (loss) => bottom - ((bottom - top) * loss) / most;
  const svg = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    chart.append(made);
  };
  for (let loss = 0; loss <= most; loss++) {
    svg("line", { class: "axis", x1: left, x2: right, y1: y(loss), y2: y(loss) });
    svg("text", { x: left - 8, y: y(loss) + 4, "text-anchor": "end" }, loss);
  }
  for (let epoch = 0; epoch <= last; epoch++) svg("text", { x: x(epoch), y: bottom + 18, "text-anchor": "middle" }, epoch);
  svg("text", { x: (left + right) / 2, y: bottom + 34, "text-anchor": "middle" }, "epochs");
  for (const of of ["train", "test"]) {
    svg("polyline", { class: of, points: points.map((point) => `${x(point.epoch)},${y(point[of])}`).join(" ") });
  }
}

const recorded = await (await fetch("recorded.json")).json();
draw(recorded);
addEventListener("resize", () => draw(recorded));
const end = recorded.points.at(-1);
byId("curve-about").textContent = recorded.about;
byId("curve-text").textContent = `Loss on the clients’ inputs (line) and on test inputs (dashed), from ${recorded.points[0].train.toFixed(2)} to ${end.train.toFixed(2)} and ${end.test.toFixed(2)}; test accuracy ${(100 * recorded.accuracy).toFixed(2)} % at the end.`;
poll();
