// From the topic to the text, and what becomes of it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ask, calm, look, page, signUp, title } from "./support.mjs";

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
  assert.ok(!(await page.getByRole("article").textContent()).includes("word-39"));
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
  await page
    .getByRole("button", { name: /^Compare/ })
    .first()
    .click();
  await page.locator("del", { hasText: "A paragraph about that." }).or(page.locator("ins")).first().waitFor();
  await look("versions");
  await page
    .getByRole("button", { name: /^Restore/ })
    .last()
    .click();
  await page.getByRole("article").getByText("Six hours of it.").waitFor();
  calm();
});

test("a post is written from what a search of the web finds, which shows as it is found", async () => {
  await signUp();
  await page.getByLabel("A topic of a few words").fill("Growing tomatoes");
  await page.getByText("Sources", { exact: true }).click();
  await page.getByLabel("Search the web for more").check();
  await look("write-search");
  await page.getByRole("button", { name: "Write the post" }).click();
  await page.getByText("Searching the web").waitFor();
  await page.getByText("not read yet").first().waitFor();
  await look("searching");
  await page.getByText("The sun of tomatoes").first().waitFor();
  await page.getByText("read, cited, found with “Growing tomatoes”").waitFor();
  await page.getByText("can't be reached, found with “Growing tomatoes”").waitFor();
  await page.getByRole("button", { name: "What source 1 says" }).click();
  await page.getByRole("dialog").locator("mark", { hasText: "Six hours of it" }).waitFor();
  calm();
});

test("a post is written from sources, and shows what they say", async () => {
  await signUp();
  await page.getByLabel("A topic of a few words").fill("Growing tomatoes");
  await page.getByText("Sources", { exact: true }).click();
  await page.getByRole("button", { name: "Add a text" }).click();
  await page.getByLabel("Title of the text").fill("The garden <book>");
  const text = "Growing tomatoes takes sun. Six hours of it. They grow slowly.";
  await page.getByLabel("The text", { exact: true }).fill(text);
  await look("write-sources");
  await page.getByRole("button", { name: "Write the post" }).click();
  await page.getByRole("button", { name: "What source 1 says" }).click();
  const passage = page.getByRole("dialog");
  await passage.locator("mark", { hasText: "Six hours of it" }).waitFor();
  await look("citation");
  await passage.getByRole("button", { name: "Close" }).click();
  await page.getByText("read, cited").waitFor();
  await look("post-sources");
  calm();
});
