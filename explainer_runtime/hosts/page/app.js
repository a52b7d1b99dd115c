// One screen: a picture, the explainers that are served, what they answer.

import {compare} from "./compare.js";
import {Jobs} from "./jobs.js";
import {element, form} from "./options.js";
import {Painting} from "./painting.js";
import {ask, events, known, Refused} from "./server.js";

const byId = id => document.getElementById(id);
const jobs = new Jobs(byId("kept"), attempt, open);
const painting = new Painting(byId("frame"), byId("brush"));
const LIKELIEST = 5;
const SHOWN = ["explanation", "card", "picture"];
const FEW = {max_rows: 16}; // with those that a new connection is tried with

let about = {models: "v2/models", jobs: false, samples: []};
let explainers = [];
let picture = null;
let chosen = 0; // how many pictures have been chosen: a large one may be ready after the next one

// Say something to everybody, those who listen included.
function say(text, bad = false) {
  byId("said").textContent = text;
  byId("said").classList.toggle("bad", bad);
}

async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    say(error.message, true);
    if (!(error instanceof Refused) && error.constructor !== Error) throw error;
    return undefined;
  }
}

// --- the picture -----------------------------------------------------------------------------------------

function base64(blob) {
  return new Promise((answer, refuse) => {
    const reader = new FileReader();
    reader.onload = () => answer(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => refuse(new Error("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}

async function choose(blob, name) {
  const turn = ++chosen;
  const image = element("img", {alt: `The picture that was chosen: ${name}`, src: URL.createObjectURL(blob)});
  const seen = await image.decode().then(() => true, () => false);
  const data = await base64(blob);
  if (turn !== chosen) return;
  if (picture) URL.revokeObjectURL(picture.url);
  picture = {name, url: image.src, data};
  byId("picture-name").textContent = name;
  byId("model").hidden = true;
  const able = explainers.filter(one => one.takes_pictures);
  const [first] = able;
  if (seen && first) painting.open(image, first.inputs);
  else {
    byId("frame").replaceChildren(element("p", {className: "help", textContent: "This browser cannot show it; the server may read it."}));
    byId("frame").hidden = false;
  }
  say(`${name} is chosen.`);
  for (const one of able) one.button.disabled = one.later.disabled = false;
  byId("all").hidden = able.length < 2;
  // Neighbours ask about this one row; of the others those that hide superpixels ask about many, or about none.
  const quick = able.find(one => one.method === "neighbours")
    ?? able.find(one => one.explain_parameters.properties.segments === undefined);
  if (quick) await attempt(() => look(quick));
}

// What the model says of the picture: an explainer that may ask about a few rows only says that much.
async function look(explainer) {
  const now = picture;
  const answer = await explanation(explainer, explainer.method === "neighbours" ? {} : FEW, ["explanation"], undefined, () => {});
  if (now === picture) tellModel(answer, explainer);
}

function tellModel(answer, explainer) {
  const scores = answer.document.data.original_proba?.[0];
  if (!scores?.some(Boolean)) return;
  const names = explainer.inputs.class_names ?? [];
  const order = scores.map((score, index) => [score, index]).sort((one, other) => other[0] - one[0]);
  const bars = byId("model").querySelector("dl");
  bars.replaceChildren(...order.slice(0, LIKELIEST).flatMap(([score, index]) => {
    const name = names[index] ?? `class ${index}`;
    const meter = element("meter", {min: 0, max: 1, value: score, "aria-label": name});
    return [element("dt", {textContent: name}), element("dd", {}, meter, chance(score))];
  }));
  const rest = scores.length - LIKELIEST;
  byId("model").querySelector(".help").textContent =
    `The probability, or score, of each class${rest > 0 ? `; ${rest} more have less` : ""}.`;
  byId("model").hidden = false;
}

// Two digits; what is not certain is never shown as 1.00, nor what is possible as 0.00.
function chance(score) {
  if (score >= 0.995 && score < 1) return ">0.99";
  return score > 0 && score < 0.005 ? "<0.01" : score.toFixed(2);
}

function listen() {
  const drop = byId("drop");
  const take = files => {
    const [file] = files;
    if (file) attempt(() => choose(file, file.name || "a pasted picture"));
  };
  byId("file").onchange = event => {
    take([...event.target.files]);
    event.target.value = "";
  };
  addEventListener("paste", event => take([...event.clipboardData.files]));
  addEventListener("dragover", event => event.preventDefault());
  addEventListener("drop", event => {
    event.preventDefault();
    drop.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
  drop.ondragenter = () => drop.classList.add("over");
  drop.ondragleave = event => drop.contains(event.relatedTarget) || drop.classList.remove("over");
}

async function offerSamples() {
  const place = byId("samples").querySelector(".samples");
  place.replaceChildren();
  for (const [index, path] of about.samples.entries()) {
    const blob = await (await ask(`page/${path}`)).blob();
    const name = path.split("/").pop();
    const image = element("img", {src: URL.createObjectURL(blob), alt: `Known picture ${index + 1}, ${name}`});
    place.append(element("button", {type: "button", onclick: () => attempt(() => choose(blob, name))}, image));
  }
  byId("samples").hidden = about.samples.length === 0;
}

// --- the explainers --------------------------------------------------------------------------------------

function send(explainer, options, outputs, headers, signal) {
  const body = {
    inputs: [{name: "image", datatype: "BYTES", shape: [1], data: [picture.data]}],
    parameters: {explain_parameters: options},
    outputs: outputs.map(name => ({name})),
  };
  return ask(`v2/models/${encodeURIComponent(explainer.name)}/explain`, {
    method: "POST", signal, body: JSON.stringify(body), headers: {"content-type": "application/json", ...headers},
  });
}

const named = answer => Object.fromEntries(answer.outputs.map(one => [one.name, one.data[0]]));

// One explanation: its V2 outputs by name, its document, and the id of the request.
async function explanation(explainer, options, outputs, signal, told) {
  const response = await send(explainer, options, outputs, {accept: "text/event-stream"}, signal);
  for await (const event of events(response)) {
    const found = named(event);
    if (event.parameters?.event === "progress") told(found);
    else return {...found, document: JSON.parse(found.explanation), id: response.headers.get("x-request-id")};
  }
  throw new Refused("The connection was lost before the answer had come. Try again.");
}

async function explain(explainer) {
  if (picture === null) throw new Error("Choose a picture first.");
  const now = picture, options = explainer.form.read(), stop = new AbortController();
  const bar = element("progress", {max: 1, "aria-label": `Progress of ${explainer.name}`});
  const told = element("span", {className: "help", textContent: "waiting for its turn"});
  const cancel = element("button", {type: "button", className: "button", textContent: "Cancel"});
  cancel.onclick = () => stop.abort();
  explainer.state.replaceChildren(bar, told, cancel);
  explainer.button.disabled = true;
  if (document.activeElement === document.body) cancel.focus();
  say(`${explainer.name} is asked about ${now.name}.`);
  try {
    const answer = await explanation(explainer, options, SHOWN, stop.signal, at => {
      bar.value = at.progress;
      told.textContent = `${Math.round(100 * at.progress)} %, the model was asked about ${at.predictor_rows} rows`;
    });
    explainer.state.replaceChildren();
    if (now === picture) tellModel(answer, explainer);
    show(answer, explainer, now, options);
  } catch (error) {
    const cancelled = error.name === "AbortError";
    const text = cancelled ? "Cancelled: the model is asked no more." : error.message;
    explainer.state.replaceChildren(element("span", {className: cancelled ? "help" : "bad", textContent: text}));
    if (cancelled) say(`${explainer.name}: ${text}`);
    throw error;
  } finally {
    explainer.button.disabled = false;
  }
}

// The same as a job, which goes on when this page is closed.
async function explainLater(explainer) {
  if (picture === null) throw new Error("Choose a picture first.");
  await send(explainer, explainer.form.read(), SHOWN, {prefer: "respond-async"});
  say(`${explainer.name} will explain ${picture.name} when there is time; see your jobs.`);
  await jobs.list(explainers);
}

async function explainAll() {
  for (const one of explainers.filter(each => each.takes_pictures)) await attempt(() => explain(one));
}

function panel(explainer) {
  const title = element("h3", {textContent: explainer.name});
  const what = element("p", {className: "help", textContent: explainer.about ?? explainer.method});
  explainer.state = element("div", {className: "state"});
  explainer.button = element("button", {className: "button main", disabled: true, textContent: "Explain"});
  explainer.button.setAttribute("aria-label", `Explain with ${explainer.name}`);
  explainer.later = element("button", {type: "button", className: "button", disabled: true, textContent: "As a job",
    onclick: () => attempt(() => explainLater(explainer))});
  explainer.later.setAttribute("aria-label", `Explain with ${explainer.name} as a job`);
  if (!explainer.takes_pictures) {
    const why = "It takes no pictures: ask it with rows, over its other routes.";
    return element("article", {className: "explainer"}, title, what, element("p", {className: "help", textContent: why}));
  }
  const rows = ({inputs}) => JSON.stringify([inputs.shape, inputs.layout, inputs.resize]);
  const alike = rows(explainers.find(one => one.takes_pictures)) === rows(explainer);
  explainer.form = form(explainer.explain_parameters, explainer.inputs.class_names ?? [], alike ? painting : null);
  const fields = element("form", {"aria-label": `Options of ${explainer.name}`}, ...explainer.form.fields,
    element("div", {className: "buttons"}, explainer.button, ...(about.jobs ? [explainer.later] : [])));
  fields.noValidate = true;
  fields.onsubmit = event => {
    event.preventDefault();
    attempt(() => explain(explainer));
  };
  return element("article", {className: "explainer"}, title, what, fields, explainer.state);
}

// --- the answers -----------------------------------------------------------------------------------------

function save(name, kind, content) {
  const link = element("a", {href: URL.createObjectURL(new Blob([content], {type: kind})), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// The answer as a page of its own, which needs nothing else and lets nothing else run.
async function standalone(answer, title) {
  const names = ["card.css", "page.css", "compare.js"];
  const [card, page, script] = await Promise.all(names.map(async name => (await ask(`page/${name}`)).text()));
  const said = name => element(name, {textContent: title}).outerHTML;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="content-security-policy" content="${about.policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">${said("title")}
<style>${card}${page}</style></head>
<body><main>${said("h1")}${answer.card}</main><script type="module">${script}</script></body></html>
`;
}

function show(answer, explainer, asked, options) {
  const name = asked.name.replace(/\.\w+$/, "");
  const file = `${name}-${explainer.name}`.replace(/[^\w.-]+/g, "_");
  const button = (text, label, onclick) => {
    const one = element("button", {type: "button", className: "button", textContent: text, onclick});
    one.setAttribute("aria-label", label);
    return one;
  };
  const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const title = `${explainer.name}, of ${asked.name}`;
  const chosen = Object.entries(options).map(([key, value]) =>
    `${key.replaceAll("_", " ")}: ${key === "region" ? "as painted" : value}`).join(", ");
  const article = element("article", {className: "answer"});
  const heading = element("h3", {tabIndex: -1, textContent: title});
  const body = element("div", {innerHTML: answer.card});
  article.append(
    element("div", {className: "heading"}, heading, element("div", {className: "buttons"},
      button("PNG", `Download ${title} as a picture`, () => save(`${file}.png`, "image/png", bytes(answer.picture))),
      button("JSON", `Download ${title} as JSON`, () => save(`${file}.json`, "application/json", answer.explanation)),
      button("HTML", `Download ${title} as a page`, () => attempt(async () =>
        save(`${file}.html`, "text/html", await standalone(answer, title)))),
      button("Remove", `Remove ${title} from this page`, () => article.remove()))),
    ...(chosen ? [element("p", {className: "help", textContent: `With ${chosen}.`})] : []),
    body);
  if (answer.id) {
    article.append(element("p", {className: "help"}, "Its id in the server's log and audit record: ",
      element("code", {textContent: answer.id})));
  }
  byId("list").prepend(article);
  byId("answers").hidden = false;
  compare(body, true);
  heading.focus({preventScroll: true});
  article.scrollIntoView({block: "nearest"});
  const words = [...body.querySelectorAll(".card h3")].map(one => one.textContent).join("; ");
  say(`${explainer.name} has answered: ${words}`);
}

// The answer of a job, which may be one that another client asked for, with other outputs.
async function open(response, explainer, name) {
  const content = await response.blob();
  const kind = content.type.split(";")[0];
  const answer = kind === "application/json" ? JSON.parse(await content.text()) : {};
  const found = Array.isArray(answer.outputs) ? named(answer) : {};
  if (found.card === undefined || found.picture === undefined || found.explanation === undefined) {
    save(`${name.replace(/\W+/g, "_")}.${kind.split("/").pop()}`, kind, content);
    say(`Another client asked for it, without a card: it was downloaded as ${kind.split("/").pop().toUpperCase()}.`);
  } else show(found, explainer, {name}, {});
}

// --- the whole -------------------------------------------------------------------------------------------

async function start() {
  about = await (await ask("page/about.json")).json();
  const listed = await (await ask(about.models)).json();
  explainers = listed.explainers.filter(one => one.inputs);
  const panels = explainers.map(panel);
  byId("forms").replaceChildren(...panels);
  if (panels.length === 0) byId("forms").append(element("p", {className: "help", textContent: "No explainer is served here."}));
  byId("another").hidden = !known();
  if (about.jobs) await jobs.list(explainers);
  else byId("kept").replaceChildren(element("p", {className: "help", textContent:
    "This server keeps no jobs: answers are gone when this page is closed. Download those that you want to keep."}));
  await offerSamples();
}

byId("all").onclick = explainAll;
// The next reader sees nothing of this one: not the picture, no answer, none that is on its way.
byId("another").onclick = () => location.reload();
listen();
attempt(start);
