// The main flow with a client that is typed by the document: `flow.ts API_ORIGIN`.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

// These answers have other formats, too.
type EventList = components["schemas"]["EventList"];
type Post = components["schemas"]["Post"];

const origin = process.argv[2];
const client = createClient<paths>({ baseUrl: origin });
const fail = (problem: unknown): never => {
  throw new Error(JSON.stringify(problem));
};

const account = { username: "typed", password: "correct horse battery" };
const signedUp = await client.POST("/api/v1/users/register", { body: account });
const token = signedUp.data?.access_token ?? fail(signedUp.error);
client.use({
  onRequest({ request }) {
    request.headers.set("Authorization", `Bearer ${token}`);
  },
});

const asked = await client.POST("/api/v1/blogs", {
  body: { topic: "Growing tomatoes", options: { words: 200, tone: "friendly" } },
});
const post = asked.data ?? fail(asked.error);
const id = post.job?.id ?? fail(post);

let after = 0;
let text = "";
for (let status = ""; status !== "succeeded"; ) {
  const read = await client.GET("/api/v1/jobs/{id}/events", {
    params: { path: { id }, query: { after, wait: 10 } },
    headers: { Accept: "application/json" },
  });
  const { events, next } = (read.data as EventList) ?? fail(read.error);
  for (const event of events) {
    if (event.event === "delta") text += event.data.text;
    if (event.event === "end") status = event.data.status;
    if (status === "failed") fail(event);
  }
  after = next ?? after;
}

const written = await client.GET("/api/v1/blogs/{id}", { params: { path: { id: post.id } } });
const { content, word_count } = (written.data as Post) ?? fail(written.error);
if (!content || !text.includes(content.split("\n")[0].slice(3, 20))) fail({ text, content });
console.log(`A client typed by openapi-typescript has read ${word_count} words.`);
