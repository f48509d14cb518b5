// Nothing that is written is lost.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ask, calm, context, look, open, page, signUp } from "./support.mjs";

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
  calm(/ERR_INTERNET_DISCONNECTED/);
});

test("a thousand edits are saved, though a fifth of the saves fail", async () => {
  await signUp();
  await ask("Growing tomatoes");
  await page.getByRole("button", { name: "Edit" }).click();
  let saves = 0;
  let running = 0;
  await page.route("**/api/v1/blogs/*", async (route) => {
    if (route.request().method() !== "PUT") return route.fallback();
    assert.equal(++running, 1, "saves overlap");
    const fate = saves++ % 5;
    // Lost on the way there, or on the way back.
    if (fate === 1) await route.abort();
    else if (fate === 3 && saves % 2) await route.fetch().then(() => route.abort());
    else await route.continue();
    running--;
  });
  const content = page.getByLabel("Text, in Markdown");
  await content.evaluate(async (area) => {
    area.value = "";
    for (let edit = 0; edit < 1000; edit++) {
      area.value += `${edit} `;
      area.dispatchEvent(new InputEvent("input"));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });
  await page.getByText("Saved", { exact: true }).waitFor();
  assert.ok(saves >= 3, `${saves} saves`);
  await page.getByRole("button", { name: "Done" }).click();
  const text = await page.getByRole("article").locator("p").textContent();
  const edits = Array.from({ length: 1000 }, (_, edit) => edit);
  assert.equal(text.trim(), edits.join(" "));
  calm(/ERR_FAILED/);
});
