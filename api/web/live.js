import { h } from "./dom.js";
import {
  CHECKED,
  default_renderer,
  EQUATION_BLOCK,
  EQUATION_INLINE,
  IMAGE,
  LINK,
  parser,
  parser_end,
  parser_write,
  RAW_URL,
  START,
} from "./vendor/streaming-markdown.js";

/**
 * The text of a job as its events tell it, drawn at most once a frame. What is there already is left
 * alone, so that neither the reader's place nor a selection is lost.
 */
export class LiveText {
  /** @param {string} topic the heading until there is a title */
  constructor(topic) {
    this.topic = topic;
    this.element = h("article", { class: "post", dir: "auto" });
    /** @type {string | null} */
    this.title = null;
    /** @type {{ heading: string | null, text: string, done: boolean }[]} */
    this.sections = [];
    this.heading = h("h1", {}, topic);
    this.element.append(this.heading);
    /** @type {LiveSection[]} */
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
        done: section.done ?? false,
      }));
    } else if (event === "delta") {
      const at = data.section;
      while (this.sections.length <= at) this.sections.push({ heading: null, text: "", done: false });
      this.sections[at].text += data.text;
    } else if (event === "section.reset") {
      const section = this.sections[data.section];
      if (section) [section.text, section.done] = ["", false];
    } else if (event === "section.done") {
      const section = this.sections[data.section];
      if (section) [section.heading, section.done] = [data.heading, true];
    } else return;
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.isDue = false;
    setText(this.heading, this.title ?? this.topic);
    while (this.drawn.length > this.sections.length) this.drawn.pop()?.element.remove();
    this.sections.forEach(({ heading, text, done }, at) => {
      if (!this.drawn[at]) {
        this.drawn[at] = new LiveSection();
        this.element.append(this.drawn[at].element);
      }
      this.drawn[at].draw(heading, text, done);
    });
  }

  hasText() {
    return this.sections.some((section) => section.text.trim() !== "");
  }

  /** Shows the newest words. */
  follow() {
    const at = this.sections.findLastIndex((section) => section.text !== "");
    this.drawn[at]?.element.scrollIntoView({ block: "end" });
  }
}

class LiveSection {
  constructor() {
    this.heading = h("h2");
    this.body = h("div");
    this.element = h("section", {}, this.heading, this.body);
    this.parser = parser(renderer(this.body));
    this.text = "";
    this.isEnded = false;
  }

  begin() {
    this.body.replaceChildren();
    this.parser = parser(renderer(this.body));
    this.text = "";
    this.isEnded = false;
  }

  /**
   * @param {string | null} heading
   * @param {string} text
   * @param {boolean} done
   */
  draw(heading, text, done) {
    this.heading.hidden = !heading;
    setText(this.heading, heading);
    if (text !== this.text) {
      if (this.isEnded || !text.startsWith(this.text)) this.begin();
      parser_write(this.parser, text.slice(this.text.length));
      this.text = text;
    }
    if (done && !this.isEnded) {
      // It keeps the last character back until then.
      parser_end(this.parser);
      this.isEnded = true;
    }
  }
}

/**
 * Draws elements and text, no HTML. Nothing is loaded and nothing leads elsewhere yet: what becomes of
 * links and pictures is known when the post is finished. A bracket may also be a citation, and a dollar
 * a price.
 * @param {HTMLElement} body
 */
function renderer(body) {
  const drawing = default_renderer(body);
  const { add_token, add_text, end_token, set_attr } = drawing;
  /** @type {{ node: HTMLElement, end: string }[]} */
  const open = [];
  drawing.add_token = (data, type) => {
    /** @type {Record<number, [string, string]>} */
    const marks = {
      [LINK]: ["[", "]"],
      [IMAGE]: ["![", "]"],
      [RAW_URL]: ["", ""],
      [EQUATION_INLINE]: ["$", "$"],
      [EQUATION_BLOCK]: ["$$", "$$"],
    };
    if (!marks[type]) {
      add_token(data, type);
      return;
    }
    const [before, end] = marks[type];
    const node = h("span");
    data.nodes[data.index].append(node);
    data.index += 1;
    data.nodes[data.index] = node;
    add_text(data, before);
    open.push({ node, end });
  };
  drawing.end_token = (data) => {
    const last = open.at(-1);
    if (last && data.nodes[data.index] === last.node) {
      add_text(data, last.end);
      open.pop();
    }
    end_token(data);
  };
  drawing.set_attr = (data, type, value) => {
    const last = open.at(-1);
    if (type === START || type === CHECKED) set_attr(data, type, value);
    else if (last) {
      // It has an address: its brackets are marks.
      last.node.firstChild?.remove();
      last.end = "";
    }
  };
  return drawing;
}

/**
 * @param {HTMLElement} element
 * @param {string | null} value
 */
function setText(element, value) {
  if (element.textContent !== (value ?? "")) element.textContent = value;
}
