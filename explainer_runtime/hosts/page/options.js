// A form made of the JSON schema of an explainer's options: what is left alone keeps the explainer's own setting.

export function element(name, attributes = {}, ...children) {
  const one = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in one) one[key] = value;
    else one.setAttribute(key, value);
  }
  one.append(...children);
  return one;
}

// Text in which `words` between backticks are code.
export function prose(text) {
  return text.split("`").map((part, index) => index % 2 ? element("code", {textContent: part}) : part);
}

const MANY = 60; // names of classes beyond which they are searched, not listed
const FINE = 1000; // steps of a slider beyond which a number is written
const BUDGET = {max_rows: 1, max_calls: 1, max_seconds: 1}; // what every explainer has, and few people change

let count = 0;

function choices(schema) {
  return (schema.anyOf ?? [schema]).filter(one => one.type !== "null");
}

function isClass(kinds) {
  return kinds.some(one => one.type === "string" && one.minLength) && kinds.some(one => one.type === "integer");
}

function words(kinds) {
  return kinds.flatMap(one => one.enum ?? (one.const === undefined ? [] : [one.const]));
}

function shown(value) {
  return Array.isArray(value) ? value.join(", ") || "none" : String(value ?? "none");
}

function select(options, initial) {
  const one = element("select");
  for (const [value, text] of options) one.append(element("option", {value, textContent: text}));
  one.value = initial;
  return {inputs: [one], read: () => one.value === initial ? undefined : JSON.parse(one.value)};
}

function classes(schema, kinds, names, many) {
  const fitted = [["", `as it was fitted: ${shown(schema.default)}`]];
  const said = words(kinds).map(word => [JSON.stringify(word), word]);
  const twice = name => names.indexOf(name) !== names.lastIndexOf(name);
  const all = names.map((name, index) => [JSON.stringify(index), twice(name) ? `${name} (${index})` : name]);
  if (names.length <= MANY && names.length && !many) return select([...fitted, ...said, ...all], "");
  if (names.length <= MANY && names.length) {
    const one = element("select", {multiple: true, size: Math.min(5, names.length)});
    for (const [value, text] of all) one.append(element("option", {value, textContent: text}));
    const read = () => [...one.selectedOptions].map(option => JSON.parse(option.value));
    return {inputs: [one], read: () => read().length ? read() : undefined};
  }
  const list = element("datalist", {id: `classes-${++count}`}, ...names.map(value => element("option", {value})));
  const one = element("input", {type: "text", placeholder: shown(schema.default), autocomplete: "off"});
  if (names.length) one.setAttribute("list", list.id);
  const value = text => /^\d+$/.test(text) && !names.includes(text) ? Number(text) : text;
  return {
    inputs: [one], more: [list],
    read: () => one.value.trim() === "" ? undefined : many ? [value(one.value.trim())] : value(one.value.trim()),
  };
}

function number(schema, kind) {
  const whole = kind.type === "integer";
  const low = kind.minimum ?? kind.exclusiveMinimum;
  const high = kind.maximum ?? kind.exclusiveMaximum;
  const step = whole ? 1 : 0.01;
  const least = kind.minimum ?? (low === undefined ? undefined : low + step);
  const most = kind.maximum ?? (high === undefined ? undefined : high - step);
  const written = element("input", {type: "number", step: whole ? 1 : "any", placeholder: shown(schema.default)});
  if (least !== undefined && whole) written.min = least;
  if (kind.maximum !== undefined) written.max = kind.maximum;
  const read = () => written.value === "" ? undefined : Number(written.value);
  if (least === undefined || most === undefined || (most - least) / step > FINE) return {inputs: [written], read};
  const start = schema.default ?? least;
  const slider = element("input", {type: "range", min: least, max: most, step, value: start});
  slider.oninput = () => { written.value = slider.value; };
  written.oninput = () => { slider.value = written.value === "" ? start : written.value; };
  return {inputs: [slider, written], read};
}

function checks(schema, words) {
  const boxes = words.map(word => element("input", {type: "checkbox", value: word,
    checked: (schema.default ?? []).includes(word)}));
  const ticked = () => boxes.filter(one => one.checked).map(one => one.value);
  const before = JSON.stringify(ticked());
  return {
    group: boxes.map((box, index) => element("label", {className: "tick"}, box, words[index].replaceAll("_", " "))),
    read: () => JSON.stringify(ticked()) === before ? undefined : ticked(),
  };
}

function control(schema, names) {
  const kinds = choices(schema);
  const [first] = kinds;
  if (isClass(kinds)) return classes(schema, kinds, names, false);
  if (first.type === "array" && isClass(choices(first.items ?? {}))) return classes(schema, [], names, true);
  if (first.type === "array" && first.items?.enum) return checks(schema, first.items.enum);
  if (kinds.length === 1 && words(kinds).length) {
    const own = schema.default ?? null;
    const said = words(kinds).map(word => [JSON.stringify(word), word]);
    return select(own === null ? [["", "as it was fitted"], ...said] : said, own === null ? "" : JSON.stringify(own));
  }
  if (kinds.length === 1 && first.type === "boolean") {
    return select([["false", "no"], ["true", "yes"]], JSON.stringify(schema.default ?? false));
  }
  if (kinds.length === 1 && ["integer", "number"].includes(first.type)) return number(schema, first);
  return null; // what no form is good for, such as a label for each pixel
}

function field(name, schema, made) {
  const id = `option-${++count}`;
  const title = name.replaceAll("_", " ");
  const help = element("p", {className: "help", id: `${id}-help`}, ...prose(schema.description ?? ""));
  if (made.group) {
    return element("fieldset", {className: "field"}, element("legend", {textContent: title}), ...made.group, help);
  }
  made.inputs.forEach((one, index) => {
    one.name = name;
    one.setAttribute("aria-describedby", help.id);
    if (index) one.setAttribute("aria-label", `${title}, as a number`);
    else one.id = id;
  });
  const label = element("label", {htmlFor: id, textContent: title});
  return element("div", {className: "field"}, label, element("div", {className: "inputs"}, ...made.inputs),
    ...(made.more ?? []), help);
}

// The options of one explainer as a form.
//   schema: as the server publishes it; names: of classes; painted: null, or what the brush has painted.
// Gives its elements, `read`, which says what was changed, and the names of options that it has no place for.
export function form(schema, names, painted) {
  const first = [], more = [], limits = [], readers = [], left = [];
  for (const [name, said] of Object.entries(schema.properties)) {
    if (name === "region" && painted) {
      const box = element("input", {type: "checkbox", name});
      box.onchange = () => painted.show(box);
      first.push(element("label", {className: "tick"}, box, "Change only what I paint on the picture"));
      readers.push([name, () => box.checked ? painted.read() : undefined]);
      continue;
    }
    const made = control(said, names);
    if (made === null) {
      left.push(name);
      continue;
    }
    const place = name.includes("class") ? first : name in BUDGET ? limits : more;
    place.push(field(name, said, made));
    readers.push([name, made.read]);
  }
  const rest = [...more, ...limits];
  const fields = [...first];
  if (rest.length || left.length) {
    const folded = element("details", {}, element("summary", {textContent: "More options"}), ...rest);
    if (left.length) {
      folded.append(element("p", {className: "help"}, "Not on this page, but in requests: ",
        ...left.flatMap((name, index) => [index ? ", " : "", element("code", {textContent: name})]), "."));
    }
    fields.push(folded);
  }
  const read = () => Object.fromEntries(readers.map(([name, value]) => [name, value()])
    .filter(([, value]) => value !== undefined));
  return {fields, read};
}
