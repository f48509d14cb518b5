// Watches a job, and prints its text once it is written: node watch.mjs JOB_URL TOKEN, after
// `npm install eventsource`. EventSource connects again by itself, and goes on where it was.
import { EventSource } from "eventsource";

const [job, token] = process.argv.slice(2);
const withToken = (url, init) =>
  fetch(url, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } });
const source = new EventSource(`${job}/events`, { fetch: withToken });
let sections = [];
const on = (name, handle) => source.addEventListener(name, (event) => handle(JSON.parse(event.data)));

on("snapshot", (data) => (sections = data.sections));
on("outline", (data) => {
  sections = data.sections.map((section, n) => ({ text: "", ...sections[n], ...section }));
});
on("section.reset", ({ section }) => (sections[section].text = ""));
on("delta", ({ section, text }) => {
  sections[section].text += text;
  process.stderr.write(text);
});
on("end", () => {
  source.close();
  const heading = (section) => (section.heading ? `## ${section.heading}\n\n` : "");
  process.stdout.write(sections.map((section) => `${heading(section)}${section.text}\n`).join("\n"));
});
