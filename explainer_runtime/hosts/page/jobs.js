// The reader's own jobs: explanations that go on when nobody waits for them.

import {element} from "./options.js";
import {ask} from "./server.js";

const MOST = 20; // of each explainer
const AGAIN = 1500; // milliseconds between two looks at jobs that have not ended

export class Jobs {
  // place: where they are listed; attempt: does something that may fail; open: shows an answer.
  constructor(place, attempt, open) {
    Object.assign(this, {place, attempt, open, timer: null});
  }

  async list(explainers) {
    clearTimeout(this.timer);
    const found = [];
    for (const explainer of explainers) {
      const path = `v2/models/${encodeURIComponent(explainer.name)}/explanations?limit=${MOST}`;
      const said = await (await ask(path)).json();
      found.push(...said.explanations.map(job => ({...job, explainer})));
    }
    found.sort((one, other) => other.created.localeCompare(one.created));
    const rows = found.map(job => this.#row(job, explainers));
    this.place.replaceChildren(rows.length ? element("ul", {className: "jobs"}, ...rows)
      : element("p", {className: "help", textContent: "There are none yet. A job goes on when this page is closed."}));
    if (found.some(job => ["queued", "running"].includes(job.state))) {
      this.timer = setTimeout(() => this.attempt(() => this.list(explainers)), AGAIN);
    }
  }

  #row(job, explainers) {
    const when = new Date(job.created).toLocaleString();
    const what = `${job.explainer.name}, asked ${when}`;
    const place = job.links.self.replace(/^\//, "");
    const act = (text, work) => {
      const one = element("button", {type: "button", className: "button", textContent: text,
        onclick: () => this.attempt(work)});
      one.setAttribute("aria-label", `${text}: ${what}`);
      return one;
    };
    const ended = !["queued", "running"].includes(job.state);
    const state = job.state === "running" ? `running, ${Math.round(100 * job.fraction)} %` : job.state;
    const buttons = [act(ended ? "Forget" : "Cancel", async () => {
      await ask(place, {method: "DELETE"});
      await this.list(explainers);
    })];
    if (job.state === "done") {
      buttons.unshift(act("Open", async () =>
        this.open(await ask(`${place}/result`), job.explainer, `a job of ${when}`)));
    }
    return element("li", {}, element("span", {textContent: what}),
      element("span", {className: "help", textContent: job.error ? `${state}: ${job.error}` : state}),
      element("span", {className: "buttons"}, ...buttons));
  }
}
