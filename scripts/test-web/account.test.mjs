// Sessions, keys, and people who use no mouse or a narrow screen.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ask, calm, look, newName, open, page, signUp } from "./support.mjs";

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

test("the keyboard is enough", async () => {
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  const press = async (...keys) => {
    for (const key of keys) await page.keyboard.press(key);
  };
  await page.getByRole("button", { name: "Create an account" }).focus();
  await press("Enter");
  await page.getByRole("heading", { name: "Create an account" }).waitFor();
  await page.keyboard.type(newName());
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
