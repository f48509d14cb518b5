import { h } from "./dom.js";

/**
 * The text of a job as its events tell it, drawn at most once a frame. What is there already is left
 * alone, so that neither the reader's place nor a selection is lost.
 */
export class LiveText {
  constructor() {
    this.element = h("article", { class: "post", dir: "auto" });
    /** @type {string | null} */
    this.title = null;
    /** @type {{ heading: string | null, text: string }[]} */
    this.sections = [];
    this.heading = h("h1");
    this.element.append(this.heading);
    /** @type {{ heading: HTMLElement, text: Text }[]} */
    this.drawn = [];
    this.isDue = false;
  }

  /**
   * @param {string} event
   * @param {any} data
   */
  apply(event, data) {
    if (event === "snapshot" || event === "outline") {
      this.title = data.title;
      this.sections = data.sections.map((/** @type {any} */ section, /** @type {number} */ at) => ({
        heading: section.heading,
        text: section.text ?? this.sections[at]?.text ?? "",
      }));
    } else if (event === "delta") {
      const at = data.section;
      while (this.sections.length <= at) this.sections.push({ heading: null, text: "" });
      this.sections[at].text += data.text;
    } else if (event === "section.reset") {
      if (this.sections[data.section]) this.sections[data.section].text = "";
    } else if (event === "section.done") {
      if (this.sections[data.section]) this.sections[data.section].heading = data.heading;
    } else return;
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.isDue = false;
    const title = this.title ?? "";
    if (this.heading.textContent !== title) this.heading.textContent = title;
    while (this.drawn.length > this.sections.length) {
      const gone = this.drawn.pop();
      gone?.heading.parentElement?.remove();
    }
    this.sections.forEach((section, at) => {
      if (!this.drawn[at]) this.add();
      const { heading, text } = this.drawn[at];
      heading.hidden = !section.heading;
      if (heading.textContent !== (section.heading ?? "")) heading.textContent = section.heading;
      if (text.data === section.text) return;
      if (section.text.startsWith(text.data)) text.appendData(section.text.slice(text.length));
      else text.data = section.text;
    });
  }

  add() {
    const heading = h("h2");
    const text = document.createTextNode("");
    const body = h("div", { class: "live" });
    body.append(text);
    this.element.append(h("section", {}, heading, body));
    this.drawn.push({ heading, text });
  }

  hasText() {
    return this.sections.some((section) => section.text.trim() !== "");
  }
}
