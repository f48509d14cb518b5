// The page in a real browser, as people use it.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, before, beforeEach, test } from "node:test";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const { API, CHROMIUM, FOLDER, PICTURES, PROGRAM } = process.env;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let browser;
let context;
let page;
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

async function open() {
  const tab = await context.newPage();
  tab.on("pageerror", (error) => complaints.push(String(error)));
  tab.on("console", (message) => {
    // A refresh without a session is refused, which a browser tells as an error.
    const isExpected = /401|409|412/.test(message.text());
    if (message.type() === "error" && !isExpected) complaints.push(message.text());
  });
  await tab.goto(API);
  return tab;
}

async function signUp() {
  await page.getByRole("button", { name: "Create an account" }).click();
  await page.getByLabel("Username").fill(`user-${process.pid}-${users++}`);
  await page.getByLabel("Password").fill("correct horse battery");
  await page.getByRole("button", { name: "Create an account" }).click();
  await page.getByRole("button", { name: "Write the post" }).waitFor();
}

/** @param {string} topic */
async function ask(topic, { review = false } = {}) {
  await page.getByRole("link", { name: "Write", exact: true }).click();
  await page.getByLabel("A topic of a few words").fill(topic);
  if (review) await page.getByLabel("Show me the outline").check();
  await page.getByRole("button", { name: "Write the post" }).click();
}

const title = (name = "A title") => page.getByRole("heading", { name, level: 1, exact: true });

/** No fault of accessibility, and a picture. */
async function look(name) {
  // Run by the debugger: the page's own policy would not let it in.
  await page.evaluate(axe);
  const { violations } = await page.evaluate("axe.run()");
  const faults = violations.map((it) => `${it.id}: ${it.nodes.map((node) => node.html).join(" ")}`);
  assert.deepEqual(faults, [], name);
  await page.screenshot({ path: `${PICTURES}/${name}.png`, fullPage: true });
}

const calm = () => assert.deepEqual(complaints, []);

test("a newcomer signs up, has a post written, and edits it", async () => {
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await look("sign-in");
  await signUp();
  await look("write");
  await ask("Growing tomatoes");
  await page.getByRole("button", { name: "Edit" }).waitFor();
  await title().waitFor();
  await look("post");
  await page.getByRole("button", { name: "Edit" }).click();
  const saved = page.waitForResponse((answer) => answer.request().method() === "PUT");
  await page.getByLabel("Text, in Markdown").fill("My **own** words.");
  await saved;
  await look("edit");
  await page.getByRole("button", { name: "Done" }).click();
  await page.locator("strong", { hasText: "own" }).waitFor();
  await page.reload();
  await page.locator("strong", { hasText: "own" }).waitFor();
  calm();
});

test("the text appears as it comes, and after a reload goes on", async () => {
  await signUp();
  await ask("Growing slowly");
  const text = page.getByRole("article");
  await text.getByText("word-3 ").waitFor();
  await look("writing");
  await page.reload();
  await text.getByText("word-3 ").waitFor();
  await page.getByRole("button", { name: "Edit" }).waitFor();
  await page.getByText("word-39").waitFor();
  calm();
});

test("what is written so far can be kept", async () => {
  await signUp();
  await ask("Growing slowly");
  await page.getByRole("article").getByText("word-3 ").waitFor();
  await page.getByRole("button", { name: "Stop, and keep this" }).click();
  await page.getByRole("button", { name: "Edit" }).waitFor();
  assert.ok(!(await page.getByRole("article").innerText()).includes("word-39"));
  calm();
});

test("an outline is changed and approved", async () => {
  await signUp();
  await ask("Growing tomatoes", { review: true });
  const headings = page.getByLabel("Heading");
  await headings.first().waitFor();
  await look("outline");
  await headings.first().fill("Pots");
  await page.getByRole("button", { name: "Move down" }).first().click();
  await page.getByRole("button", { name: "Write it" }).click();
  await page.getByRole("button", { name: "Edit" }).waitFor();
  const written = await page.getByRole("heading", { level: 2 }).allInnerTexts();
  assert.deepEqual(written, ["Water", "Pots"]);
  calm();
});

test("posts are found, and deleted with a way back", async () => {
  await signUp();
  for (const topic of ["Growing tomatoes", "Growing tomatoes <img src=x onerror=alert(1)>"]) {
    await ask(topic);
    await page.getByRole("button", { name: "Edit" }).waitFor();
  }
  await page.getByRole("link", { name: "My posts" }).click();
  const items = page.getByRole("listitem");
  await items.nth(1).waitFor();
  await look("posts");
  await page.getByLabel("Search").fill("onerror");
  await items.nth(1).waitFor({ state: "detached" });
  assert.match(page.url(), /\?q=onerror$/);
  await page.getByRole("button", { name: /^Delete/ }).click();
  await items.first().waitFor({ state: "hidden" });
  await page.getByRole("button", { name: "Undo" }).click();
  await items.first().waitFor();
  await page.getByLabel("Search").fill("nothing like that");
  await page.getByText("No post matches that.").waitFor();
  calm();
});

test("a section is written again, and versions are compared and restored", async () => {
  await signUp();
  await ask("Growing tomatoes");
  const rewrite = async () => {
    await page.getByText("Have a section written again").click();
    await page.getByLabel("Section", { exact: true }).selectOption("Sun");
    await page.getByLabel("What you want of it").fill("Shorter.");
    await page.getByRole("button", { name: "Write it again" }).click();
    await page.locator("ins", { hasText: "A paragraph about that." }).waitFor();
  };
  await rewrite();
  await look("offer");
  await page.getByRole("button", { name: "Go back to the old text" }).click();
  await page.getByRole("article").getByText("Six hours of it.").waitFor();
  await rewrite();
  await page.getByRole("button", { name: "Take it" }).click();
  await page.getByRole("article").getByText("A paragraph about that.").waitFor();
  await page.getByRole("link", { name: "Versions" }).click();
  await page.getByRole("button", { name: /^Compare/ }).first().click();
  await page.locator("del", { hasText: "A paragraph about that." }).or(page.locator("ins")).first().waitFor();
  await look("versions");
  await page.getByRole("button", { name: /^Restore/ }).last().click();
  await page.getByRole("article").getByText("Six hours of it.").waitFor();
  calm();
});

test("an account has keys, sessions, a password, and an end", async () => {
  await signUp();
  await page.getByRole("link", { name: /^user-/ }).click();
  await page.getByLabel("Name of the program").fill("digest");
  await page.getByRole("button", { name: "Make a key" }).click();
  await page.getByText(/^bpk_/).first().waitFor();
  await look("account");
  await page.getByRole("button", { name: "Revoke: digest" }).click();
  await page.getByRole("button", { name: "Revoke: digest" }).waitFor({ state: "detached" });
  await page.getByLabel("Present password").first().fill("wrong password");
  await page.getByLabel("New password").fill("another good horse");
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await page.getByRole("alert").first().getByText(/./).waitFor();
  await page.getByLabel("Present password").first().fill("correct horse battery");
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await page.getByText("Changed. All other sessions are over.").waitFor();
  await page.getByLabel("Present password").last().fill("another good horse");
  await page.getByRole("button", { name: "Delete the account" }).click();
  await page.getByRole("button", { name: "Sign in", exact: true }).waitFor();
  calm();
});

test("an admin sees the queue and acts on it", async () => {
  await signUp();
  await ask("Growing tomatoes");
  await page.getByRole("button", { name: "Edit" }).waitFor();
  assert.equal(await page.getByRole("link", { name: "Console" }).count(), 0);
  const name = await page.getByRole("link", { name: /^user-/ }).innerText();
  await promisify(execFile)(PROGRAM, ["make-admin", name], { cwd: FOLDER, env: { DATA_DIR: "." } });
  await page.reload();
  await page.getByRole("link", { name: "Console" }).click();
  await page.getByText("Workers take jobs.").waitFor();
  await look("console");
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByText("workers take no jobs").waitFor();
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByText("Workers take jobs.").waitFor();
  await page.getByRole("link", { name: "Jobs" }).click();
  await page.getByLabel("Status", { exact: true }).selectOption("succeeded");
  await page.getByRole("button", { name: "Search" }).click();
  assert.match(page.url(), /\?status=succeeded$/);
  const job = page.getByRole("row").nth(1).getByRole("link");
  await job.waitFor();
  await look("console-jobs");
  await job.click();
  await page.getByText("from there to the end").or(page.getByText("Tokens, in / out")).waitFor();
  await look("console-job");
  for (const tab of ["Workers", "Users", "Audit"]) {
    await page.getByRole("link", { name: tab }).click();
    await page.getByRole("row").nth(1).waitFor();
    await look(`console-${tab.toLowerCase()}`);
  }
  calm();
});

test("signing out in one tab signs out the other", async () => {
  await signUp();
  const other = await open();
  await other.getByRole("button", { name: "Write the post" }).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  for (const tab of [page, other]) {
    await tab.getByRole("button", { name: "Sign in", exact: true }).waitFor();
  }
  await other.reload();
  await other.getByRole("button", { name: "Sign in", exact: true }).waitFor();
  calm();
});

test("of two edits at once neither is lost", async () => {
  await signUp();
  await ask("Growing tomatoes");
  await page.getByRole("button", { name: "Edit" }).click();
  const other = await open();
  await other.goto(page.url());
  await other.getByRole("button", { name: "Edit" }).click();
  const saved = other.waitForResponse((answer) => answer.request().method() === "PUT");
  await other.getByLabel("Text, in Markdown").fill("Theirs.");
  await saved;
  await page.getByLabel("Text, in Markdown").fill("Mine.");
  await page.getByText("This post was changed elsewhere").waitFor();
  await page.getByText("Theirs.").waitFor();
  await look("conflict");
  await page.getByRole("button", { name: "Keep mine" }).click();
  await page.getByText("Saved", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Done" }).click();
  await page.getByRole("article").getByText("Mine.").waitFor();
  calm();
});

test("what is written while the network is away, or left in a hurry, is not lost", async () => {
  await signUp();
  await ask("Growing tomatoes");
  await page.getByRole("button", { name: "Edit" }).click();
  const content = page.getByLabel("Text, in Markdown");
  await context.setOffline(true);
  await content.fill("Written in a tunnel.");
  await page.getByText("Not saved. Trying again …").waitFor();
  await content.fill("Written in a long tunnel.");
  await context.setOffline(false);
  await page.getByText("Saved", { exact: true }).waitFor();
  const saved = page.waitForResponse((answer) => answer.request().method() === "PUT");
  await content.fill("Left at once.");
  await page.getByRole("link", { name: "My posts" }).click();
  await saved;
  await page.getByRole("link", { name: "A title" }).click();
  await page.getByRole("article").getByText("Left at once.").waitFor();
  // A tab that is reloaded before it has saved has the text still.
  await page.getByRole("button", { name: "Edit" }).click();
  await context.setOffline(true);
  await content.fill("A draft.");
  await page.getByText("Not saved. Trying again …").waitFor();
  await context.setOffline(false);
  page.once("dialog", (dialog) => dialog.accept());
  await page.reload();
  await page.getByRole("button", { name: "Edit" }).click();
  await page.getByText("Saved", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Preview" }).click();
  await page.getByRole("article").getByText("A draft.").waitFor();
  complaints = complaints.filter((it) => !it.includes("ERR_INTERNET_DISCONNECTED"));
  calm();
});

test("the keyboard is enough", async () => {
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  const press = async (...keys) => {
    for (const key of keys) await page.keyboard.press(key);
  };
  await page.getByRole("button", { name: "Create an account" }).focus();
  await press("Enter");
  await page.getByRole("heading", { name: "Create an account" }).waitFor();
  await page.keyboard.type(`user-${process.pid}-${users++}`);
  await press("Tab");
  await page.keyboard.type("correct horse battery");
  await press("Enter");
  await page.getByRole("button", { name: "Write the post" }).waitFor();
  await page.keyboard.type("Growing tomatoes");
  await press("Tab", "Tab", "Tab", "Enter");
  await page.getByRole("button", { name: "Edit" }).waitFor();
  await press("Tab");
  const focused = await page.evaluate("document.activeElement.tagName");
  assert.equal(focused, "SUMMARY");
  calm();
});

test("it fits a narrow screen, in the dark", async () => {
  await page.setViewportSize({ width: 360, height: 740 });
  await page.emulateMedia({ colorScheme: "dark" });
  await signUp();
  await look("write-narrow-dark");
  await ask("Growing tomatoes");
  await page.getByRole("button", { name: "Edit" }).waitFor();
  await look("post-narrow-dark");
  const isWide = await page.evaluate("document.documentElement.scrollWidth > innerWidth");
  assert.equal(isWide, false);
  calm();
});
