// The console of admins.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { API, ask, calm, look, page, signUp } from "./support.mjs";

const { FOLDER, PROGRAM } = process.env;

async function becomeAdmin() {
  const name = await page.getByRole("link", { name: /^user-/ }).textContent();
  await promisify(execFile)(PROGRAM, ["make-admin", name], { cwd: FOLDER, env: { DATA_DIR: "." } });
  await page.reload();
}

test("an admin sees the queue and acts on it", async () => {
  await signUp();
  await ask("Growing tomatoes");
  await page.getByRole("button", { name: "Edit" }).waitFor();
  assert.equal(await page.getByRole("link", { name: "Console" }).count(), 0);
  await becomeAdmin();
  await page.getByRole("link", { name: "Console" }).click();
  await page.getByText("Workers take jobs.").waitFor();
  await look("console");
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByText("workers take no jobs").waitFor();
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByText("Workers take jobs.").waitFor();
  await page.getByRole("link", { name: "Jobs" }).click();
  await page.getByLabel("Find jobs").fill("status:succeeded");
  await page.getByLabel("Find jobs").press("Enter");
  assert.match(page.url(), /\?status=succeeded$/);
  const job = page.getByRole("row").nth(1).getByRole("link").first();
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

test("many jobs are listed, refreshed in their places, and changed at once", async () => {
  await signUp();
  await becomeAdmin();
  await page.getByRole("link", { name: "Console" }).click();
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByText("workers take no jobs").waitFor();
  const name = await page.getByRole("link", { name: /^user-/ }).textContent();
  const token = await signIn(name);
  for (let number = 0; number < 60; number++) await post(token, `Growing tomatoes ${number}`);
  await page.getByRole("link", { name: "Jobs" }).click();
  await page.getByLabel("Find jobs").fill(`status:queued ${name}`);
  await page.keyboard.press("Enter");
  const rows = page.locator("tbody tr");
  await rows.nth(49).waitFor();
  assert.equal(await rows.count(), 50);
  await page.getByRole("button", { name: "Show more" }).click();
  await rows.nth(59).waitFor();
  // What comes moves nothing until it is asked for.
  await post(token, "Growing more tomatoes");
  const fresh = page.getByRole("button", { name: "Show 1 new" });
  await fresh.waitFor();
  assert.match(await rows.first().textContent(), /Growing tomatoes 59/);
  await look("console-many-jobs");
  await fresh.click();
  await rows.first().getByText("Growing more tomatoes").waitFor();
  const change = async (action) => {
    const question = page.waitForEvent("dialog").then((dialog) => {
      const asked = dialog.message();
      return dialog.accept().then(() => asked);
    });
    await page.getByRole("button", { name: `${action} all that match` }).click();
    return question;
  };
  assert.match(await change("Cancel"), /^Cancel 61 jobs, of 61 that match \(status:queued user-/);
  await page.getByText("61 of 61 jobs changed.").waitFor();
  await page.getByText("No job matches that.").waitFor();
  await page.getByLabel("Find jobs").fill(`status:canceled ${name}`);
  await page.keyboard.press("Enter");
  await rows.nth(49).waitFor();
  assert.match(await change("Retry"), /^Retry 61 jobs/);
  await page.getByText("61 of 61 jobs changed.").waitFor();
  await page.getByRole("link", { name: "Queue" }).click();
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByText("Workers take jobs.").waitFor();
  calm();
});

test("the search box completes what is typed, and finds a job by its id", async () => {
  await signUp();
  await ask("Growing tomatoes");
  await page.getByRole("button", { name: "Edit" }).waitFor();
  await becomeAdmin();
  await page.goto(`${API}/app/console/jobs?q=tomatoes`);
  const box = page.getByLabel("Find jobs");
  const job = page.locator("tbody tr").first().getByRole("link").first();
  await job.waitFor();
  const id = (await job.getAttribute("href")).split("/").at(-1);
  await box.fill("growing mod");
  const offered = page.locator("datalist option");
  assert.equal(await offered.first().getAttribute("value"), "growing model:one");
  await box.fill("status:nonsense");
  await box.press("Enter");
  await page
    .getByText(/status/)
    .last()
    .waitFor();
  await box.fill(id);
  await box.press("Enter");
  await page.getByText("Tokens, in / out").waitFor();
  assert.match(page.url(), new RegExp(`${id}$`));
  calm(/400|422/);
});

/** @param {string} path */
async function send(path, body, headers = {}) {
  const answer = await fetch(`${API}/api/v1${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  assert.ok(answer.ok, await answer.clone().text());
  return answer.json();
}

async function signIn(username) {
  const pair = await send("/users/login", { username, password: "correct horse battery" });
  return pair.access_token;
}

const post = (token, topic) => send("/blogs", { topic }, { authorization: `Bearer ${token}` });
