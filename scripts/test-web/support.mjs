// A browser for the tests of a file, and what people do in it everywhere.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, before, beforeEach } from "node:test";
import { chromium } from "playwright-core";

export const { API, CHROMIUM, PICTURES } = process.env;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let browser;
/** What a visitor's tabs share. Each test has a new visitor. */
export let context;
/** The visitor's first tab. */
export let page;
/** What browsers complain of. */
let complaints;
let users = 0;

before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
});
after(() => browser.close());

beforeEach(async () => {
  await context?.close();
  context = await browser.newContext({ viewport: { width: 1100, height: 900 } });
  context.setDefaultTimeout(15_000);
  complaints = [];
  page = await open();
});

export async function open(address = API) {
  const tab = await context.newPage();
  tab.on("pageerror", (error) => complaints.push(String(error)));
  tab.on("console", (message) => {
    // A refresh without a session is refused, which a browser tells as an error.
    const isExpected = /401|409|412/.test(message.text());
    if (message.type() === "error" && !isExpected) complaints.push(message.text());
  });
  await tab.goto(address);
  return tab;
}

export const newName = () => `user-${process.pid}-${users++}`;

export async function signUp() {
  await page.getByRole("button", { name: "Create an account" }).click();
  await page.getByLabel("Username").fill(newName());
  await page.getByLabel("Password").fill("correct horse battery");
  await page.getByRole("button", { name: "Create an account" }).click();
  await page.getByRole("button", { name: "Write the post" }).waitFor();
}

/** @param {string} topic */
export async function ask(topic, { review = false } = {}) {
  await page.getByRole("link", { name: "Write", exact: true }).click();
  await page.getByLabel("A topic of a few words").fill(topic);
  if (review) await page.getByLabel("Show me the outline").check();
  await page.getByRole("button", { name: "Write the post" }).click();
}

export const title = (name = "A title") => page.getByRole("heading", { name, level: 1, exact: true });

/** No fault of accessibility, and a picture. */
export async function look(name) {
  // Run by the debugger: the page's own policy would not let it in.
  await page.evaluate(axe);
  const { violations } = await page.evaluate("axe.run()");
  const faults = violations.map((it) => `${it.id}: ${it.nodes.map((node) => node.html).join(" ")}`);
  assert.deepEqual(faults, [], name);
  await page.screenshot({ path: `${PICTURES}/${name}.png`, fullPage: true });
}

/**
 * No browser has complained.
 * @param {RegExp} [expected] but of this
 */
export const calm = (expected = /$^/) =>
  assert.deepEqual(
    complaints.filter((it) => !expected.test(it)),
    [],
  );
