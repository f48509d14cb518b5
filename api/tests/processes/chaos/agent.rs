//! An agent that has lost its mind.

use rand::RngExt;
use testing::stub::{Act, stream, whole};
use testing::stub_openai::{DONE, delta, finish};
use tokio::time::sleep;

use super::load::Load;
use super::worker_pool::WorkerPool;
use super::{invariants, length, service};
use crate::support::ScriptedAgent;

#[tokio::test]
async fn a_misbehaving_agent_is_asked_once_for_each_good_section() {
    let writer = ScriptedAgent::told(|_, _| {
        let mood = rand::rng().random_range(0..48);
        mad(mood)
    })
    .await;
    let service = service(&writer).set("AGENT_TIMEOUT_SECS", "2");
    let api = service.api().await;
    let fleet = WorkerPool::of(2, &service).await;
    let crowd = Load::at(&api).await;
    sleep(length()).await;
    let asked = crowd.content().await;
    assert_eq!(asked.refused, 0);
    fleet.stop().await;
    api.stop().await.assert_no_warnings();
    invariants::balance(&service, &writer, &asked).await;
}

/// What it does instead of writing, in some of its moods.
fn mad(mood: usize) -> Option<Vec<Act>> {
    let begun = Act::Chunk(delta("Once upon a time"));
    Some(match mood {
        0 => whole(500, &[("content-type", "text/html")], "<h1>Oh no</h1>"),
        1 => whole(503, &[("retry-after", "0")], ""),
        2 => whole(200, &[("content-type", "application/json")], "[null, 7]"),
        3 => stream([begun]),
        4 => stream([begun, Act::Reset]),
        5 => stream([begun, Act::Chunk("data: {\n\n".into()), Act::End]),
        6 => stream([
            Act::Chunk(finish("stop")),
            Act::Chunk(DONE.into()),
            Act::End,
        ]),
        7 => vec![Act::Reset],
        8 => vec![Act::Hold],
        9 => whole(429, &[("retry-after", "0")], ""),
        _ => return None,
    })
}
