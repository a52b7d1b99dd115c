// Two pictures of a card in one place: the first on the left of a slider's handle, the second on its right; or the
// two mixed. The words above say which is which: readers take the name on the left for the half on the left.
// Nothing is lost where scripts do not run: the pictures stand side by side below.

let made = 0;

function element(name, attributes, ...children) {
  const one = Object.assign(document.createElement(name), attributes);
  one.append(...children);
  return one;
}

function stage(card) {
  const figures = [...card.querySelectorAll("figure")].filter(one => one.dataset.another === undefined);
  if (figures.length < 2) return null;
  const [below, ...others] = figures.map(one => ({
    image: one.querySelector("img"), title: one.querySelector(".over").textContent,
  }));
  const before = element("img", {src: below.image.src, alt: below.image.alt});
  const after = element("img", {className: "after", alt: ""});
  const pictures = element("div", {className: "stage"}, before, after);
  const slider = element("input", {type: "range", min: 0, max: 100, value: 50});
  const name = `compared-${++made}`;
  const choose = other => {
    after.src = other.image.src;
    after.alt = other.image.alt;
    slider.setAttribute("aria-label", `How much of “${other.title}” is shown over “${below.title}”`);
    end.textContent = other.title;
  };
  const end = element("span");
  const radios = others.map((other, index) => element("label", {},
    element("input", {type: "radio", name, checked: index === 0, onchange: () => choose(other)}), other.title));
  const mixed = element("input", {type: "checkbox"});
  const show = () => {
    const shown = mixed.checked ? slider.value : 100 - slider.value;
    pictures.classList.toggle("mixed", mixed.checked);
    pictures.style.setProperty("--shown", shown / 100);
    slider.setAttribute("aria-valuetext", `${shown} percent`);
  };
  slider.oninput = show;
  mixed.onchange = () => {
    slider.value = 100 - slider.value;  // as much is shown as before
    show();
  };
  choose(others[0]);
  show();
  const which = element("fieldset", {hidden: others.length < 2},
    element("legend", {textContent: `Beside “${below.title}”`}), ...radios);
  return element("div", {className: "compare"},
    element("div", {className: "halves"}, element("span", {textContent: below.title}), end),
    pictures, slider, which, element("label", {}, mixed, "mix the two"));
}

// Gives each card of `root` its slider: at once (`open`), or behind a button, where a page has many cards.
export function compare(root, open = false) {
  for (const card of root.querySelectorAll(".card:not(.comparable)")) {
    const made = stage(card);
    if (made === null) continue;
    card.classList.add("comparable");
    made.hidden = !open;
    const button = element("button", {type: "button", textContent: "Compare with a slider", hidden: open});
    button.setAttribute("aria-expanded", "false");
    button.onclick = () => {
      made.hidden = !made.hidden;
      button.setAttribute("aria-expanded", String(!made.hidden));
    };
    card.querySelector(".panels").before(made);
    card.append(button);
  }
}

compare(document);
