// What happens to services and browsers: they die, they are many, they are slow, they are attacked.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { ask, calm, look, open, page, signUp } from "./support.mjs";

const { FOLDER, PROGRAM, PATH } = process.env;

/** Another API beside that of the other tests, on the same data. */
class OwnApi {
  listen = "127.0.0.1:0";

  async start() {
    const AGENT_URL = (await readFile(`${FOLDER}/agent.url`, "utf8")).trim();
    const settings = { AGENT: "openai", AGENT_MODEL: "one", AGENT_URL, METRICS_ADDR: "off", NO_COLOR: "1" };
    const env = { PATH, DATA_DIR: ".", LISTEN_ADDR: this.listen, ...settings };
    this.process = spawn(PROGRAM, { cwd: FOLDER, env, stdio: ["ignore", "pipe", "inherit"] });
    for await (const line of createInterface(this.process.stdout)) {
      const ready = /the API is ready address=(\S+)/.exec(line);
      if (!ready) continue;
      this.listen = ready[1];
      this.process.stdout.resume();
      return;
    }
    assert.fail("The API has not started.");
  }

  async kill() {
    this.process.kill("SIGKILL");
    await once(this.process, "exit");
  }
}

test("the API is killed and comes back, and the page goes on", async (t) => {
  const api = new OwnApi();
  await api.start();
  t.after(() => api.kill());
  await page.goto(`http://${api.listen}`);
  await signUp();
  await ask("Growing slowly");
  await page.getByRole("article").getByText("word-3 ").waitFor();
  await api.kill();
  await api.start();
  await page.getByText("word-39").waitFor();
  await page.getByRole("button", { name: "Edit" }).click();
  await api.kill();
  await page.getByLabel("Text, in Markdown").fill("Written while it was away.");
  await page.getByText("Not saved. Trying again …").waitFor();
  await api.start();
  await page.getByText("Saved", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Done" }).click();
  await page.getByRole("article").getByText("Written while it was away.").waitFor();
  calm(/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE/);
});

test("eight tabs watch eight posts at once", async () => {
  await signUp();
  const tabs = [page];
  while (tabs.length < 8) tabs.push(await open());
  for (const tab of tabs) {
    await tab.getByLabel("A topic of a few words").fill("Growing slowly");
    await tab.getByRole("button", { name: "Write the post" }).click();
  }
  const streams = new Set();
  for (const tab of tabs) {
    await tab.getByText("word-39").waitFor({ timeout: 30_000 });
    streams.add(tab.url());
  }
  assert.equal(streams.size, 8);
  calm();
});

test("a long post is drawn as it comes, without a pause", async (t) => {
  await signUp();
  await page.evaluate(() => {
    window.longest = 0;
    let last = performance.now();
    const frame = (now) => {
      window.longest = Math.max(window.longest, now - last);
      last = now;
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  await ask("Growing at length");
  await page.getByText("word-300 ").waitFor();
  // Who reads further up is left there.
  await page.evaluate(() => scrollTo(0, 40));
  await page.getByText("word-2500 ").waitFor();
  assert.equal(await page.evaluate(() => scrollY), 40);
  await page.getByText("word-4999").waitFor({ timeout: 60_000 });
  t.diagnostic(`the longest frame: ${Math.round(await page.evaluate(() => window.longest))} ms`);
  calm();
});

test("hostile text does nothing, and breaks no layout", async () => {
  await page.setViewportSize({ width: 360, height: 740 });
  await signUp();
  await ask("Growing tomatoes");
  await page.getByRole("button", { name: "Edit" }).click();
  page.on("dialog", () => assert.fail("something has run"));
  const name = `<img src=x onerror=alert(1)>\u202e${"W".repeat(120)}`;
  await page.getByLabel("Title").fill(name);
  const saved = page.waitForResponse((answer) => answer.request().method() === "PUT");
  await page
    .getByLabel("Text, in Markdown")
    .fill(
      [
        "<script>alert(1)</script><img src=x onerror=alert(1)><style>* { display: none }</style>",
        "[one](javascript:alert(1)) <a href='data:text/html,<script>alert(1)</script>'>two</a>",
        "<form action='/api/v1/users/logout'><button id=main>Edit</button></form>",
        "W".repeat(2000),
        `| ${"wide | ".repeat(40)}\n|${" ---: |".repeat(40)}\n| ${"1 | ".repeat(40)}`,
        `\`\`\`\n${"x".repeat(2000)}\n\`\`\``,
        "שלום \u202e abc \ufeff",
        ">".repeat(60),
      ].join("\n\n"),
    );
  await saved;
  await page.getByRole("button", { name: "Done" }).click();
  const fits = async (where) => {
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false, where);
  };
  const heading = page.getByRole("article").locator("h1");
  await heading.waitFor();
  assert.equal(await heading.textContent(), name);
  await fits("post");
  await look("hostile");
  assert.equal(await page.getByRole("button", { name: "Edit" }).count(), 1);
  await page.getByRole("link", { name: "Versions" }).click();
  await page
    .getByRole("button", { name: /^Compare/ })
    .first()
    .click();
  await page.locator("ins, del").first().waitFor();
  await fits("versions");
  await page.getByRole("link", { name: "My posts" }).click();
  await page.getByRole("listitem").first().waitFor();
  await fits("posts");
  calm();
});
